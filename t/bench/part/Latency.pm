package Part::Latency;

# From PUBLISH to the last client of the channel.

use v5.36;
use Bench;
use List::Util qw(sum);
use Report;
use Servers;

# cases: messages a second, messages
our %sizes = (
    full  => { cases => [[10, 40], [100, 200], [1000, 2000]],
               clients => 1000 },
    quick => { cases => [[100, 40]], clients => 1000 },
    smoke => { cases => [[100, 20]], clients => 100 },
);

sub seconds ($size, $rounds) {
    return 2 + $rounds * sum(map { 2 * $_->[1] / $_->[0] }
                                 @{$size->{cases}});
}

sub run ($size, $rounds, %) {
    my @servers = (Servers::bare('lb'), Servers::rt('lr'));
    my %load = Servers::loads(\@servers, clients => $size->{clients},
                                channels => 100);
    Servers::channels_live("l$_*", 100) for qw(b r);

    my @cases = @{$size->{cases}};
    for my $i (0 .. $#cases) {
        my ($rate, $count) = @{$cases[$i]};
        my %values = Bench::rounds($rounds, Bench::told(
                "latency: $rate messages/s", map { $_ / @cases } $i, $i + 1),
            map { my $name = $_; ($name => sub {
                $load{$name}->run($rate, $count) }) } keys %load);
        for my $p (qw(p50 p99)) {
            Report::row(part => 'latency', unit => 'ms', target => 1.1,
                label => "$p, $rate messages/s",
                values => Bench::pick($p, %values));
        }
    }
    $_->close for values %load;
    $_->{stop}->() for @servers;
}

1;
