package Part::Fan;

# CPU time of the server for each message written to a client.

use v5.36;
use Bench;
use Report;
use Servers;

# cases: channels, clients, messages a second, messages, peers
my @all = ('Nchan', 'Nchan by Redis', 'Node');
our %sizes = (
    full  => { cases => [[1, 1000, 20, 40, @all],
                         [10_000, 10_000, 20_000, 40_000, 'Nchan', 'Node']] },
    quick => { cases => [[1, 1000, 20, 8, @all],
                         [1000, 1000, 10_000, 3000, 'Nchan']] },
    smoke => { cases => [[1, 20, 50, 10, @all], [20, 20, 100, 20]] },
);

sub seconds ($size, $rounds) {
    my $sum = 4;
    for (@{$size->{cases}}) {
        my ($channels, $clients, $rate, $count, @peers) = @$_;
        $sum += (2 + @peers) * ($clients / 4000 + $rounds * $count / $rate);
    }
    return $sum;
}

sub run ($size, $rounds, %opt) {
    my @cases = @{$size->{cases}};
    for my $i (0 .. $#cases) {
        my ($channels, $clients, $rate, $count, @peers) = @{$cases[$i]};
        my $what = 'fan-out: ' . Report::commas($channels) . ' x '
            . Report::commas($clients / $channels);
        my @share = map { $_ / @cases } $i, $i + 1;
        Bench::progress("$what, opening", $share[0]);

        my @servers = (
            Servers::bare('b', map { $_ => $opt{$_} } qw(corrupt lose)),
            Servers::rt('r'), Servers::others('o'),
            Servers::peers('p', @peers),
        );
        my %pid = map { $_->{name} => $_->{pid} } @servers;
        my %load = Servers::loads(\@servers, clients => $clients,
                                  channels => $channels);
        Servers::channels_live("$_*", $channels) for qw(b r);

        my %late = map { $_ => 0 } keys %load;
        my $measure = sub ($name) {
            return Bench::paced(\%late, $name, $pid{$name}, $load{$name},
                                $rate, $count, $channels);
        };
        my (%failed, %subs);
        for my $name (keys %load) {
            my $peer = grep { $_ eq $name } @peers;
            $subs{$name} = $peer
                ? sub { Servers::try(\%failed, $name, sub {
                    $measure->($name) }) }
                : sub { $measure->($name) };
        }
        my %values = Bench::rounds($rounds, Bench::told($what, @share), %subs);
        delete $values{$_} for keys %failed;

        Report::row(part => 'fan', unit => 'us per delivery',
            label => Report::commas($channels)
                . ($channels == 1 ? ' channel, ' : ' channels, ')
                . Report::commas($clients) . ' clients',
            target => $channels == 1 ? 1.05 : 1.2, values => \%values,
            late => \%late, fails => [sort keys %failed],
            is => $channels == 1 ? 'fan one' : 'fan many');

        $_->close for values %load;
        $_->{stop}->() for @servers;
    }
}

1;
