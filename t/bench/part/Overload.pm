package Part::Overload;

# More than the bare loop can take, for some seconds: how old a message is when
# a client has it.  What it can take is measured first, by its CPU time; each
# message of each client is verified, and its age is from when it was due.

use v5.36;
use Bench;
use Report;
use Servers;

our %sizes = (
    full  => { clients => 1000, times => 1.3, for => 4, rounds => 3 },
    quick => { clients => 1000, times => 1.3, for => 1, rounds => 2 },
    smoke => { clients => 50,   times => 1.3, for => 0.2 },
);

sub seconds ($size, $rounds) {
    return 4 + $rounds * $size->{for} * 2.6;
}

sub run ($size, $rounds, %) {
    my ($clients, $times) = @$size{qw(clients times)};
    Bench::progress('overload: what the bare loop can take');
    my @servers = (Servers::bare('ob'),
                   Servers::rt('or', 'ngx_rt', '', 'rt_buffer 8m;'));
    my %pid = map { $_->{name} => $_->{pid} } @servers;
    my %load = Servers::loads(\@servers, clients => $clients);
    Servers::channels_live("o$_*", 1) for qw(b r);

    my $probe = int 50_000 / $clients;
    my @cost = map { scalar Bench::cost($pid{bare}, $load{bare}, 0, $probe) }
        1 .. 3;
    my $rate = $times * 1e6 / (Bench::median(@cost) * $clients);
    my $count = int $rate * $size->{for} + 1;
    my $redis = $Bench::redis;
    my $full = 0;
    my %values = Bench::rounds($rounds,
        Bench::told(sprintf('overload: %.0f messages/s', $rate), 0.2),
        map { my $name = $_; ($name => sub {
            my $before = Bench::cpu_of($load{$name}{pid}, $redis->pid);
            my $r = $load{$name}->run($rate, $count);
            # whether the load itself could keep up
            $full++ if $name eq 'ngx_rt' && 0.95e6 * $r->{wall}
                < Bench::cpu_of($load{$name}{pid}, $redis->pid) - $before;
            return $r }) } keys %load);
    Report::row(part => 'overload', unit => 'ms',
        label => "p99 at $times x, " . Report::commas($clients) . ' clients',
        limit => 50, says => $full ? "the load was busy in $full" : '',
        values => Bench::pick('each99', %values));
    Report::row(part => 'overload', unit => 'ms',
        label => "p50 of the last client, at $times x",
        values => Bench::pick('p50', %values));

    $_->close for values %load;
    $_->{stop}->() for @servers;
}

1;
