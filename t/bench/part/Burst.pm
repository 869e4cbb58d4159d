package Part::Burst;

# A burst: many messages of one channel in one write to Redis, to all of its
# clients; what the server's CPU brings in a second.  The bare loop writes each
# message to each client, however many there are: it gets a tenth of them.

use v5.36;
use Bench;
use Report;
use Servers;

our %sizes = (
    full  => { clients => 1000, messages => 3000 },
    quick => { clients => 200,  messages => 3000 },
    smoke => { clients => 20,   messages => 200 },
);

sub seconds ($size, $rounds) {
    return 3 + $rounds * $size->{clients} * $size->{messages} / 600_000;
}

sub run ($size, $rounds, %) {
    my ($clients, $messages) = @$size{qw(clients messages)};
    Bench::progress('burst, opening');
    # what waits for a client may be all of the burst
    my @servers = (Servers::bare('ub'),
                   Servers::rt('ur', 'ngx_rt', '', 'rt_buffer 8m;'),
                   Servers::others('uo', 'rt_buffer 8m;'));
    my %pid = map { $_->{name} => $_->{pid} } @servers;
    my %load = Servers::loads(\@servers, clients => $clients, burst => 1);
    Servers::channels_live("u$_*", 1) for qw(b r);

    my %values = Bench::rounds($rounds, Bench::told('burst'),
        map { my $name = $_; ($name => sub {
            my $n = $name eq 'bare' ? $messages / 10 : $messages;
            1e6 / Bench::cost($pid{$name}, $load{$name}, 0, $n) }) }
        keys %load);
    Report::row(part => 'burst', unit => 'deliveries per CPU second',
        label => Report::commas($messages) . ' messages, '
            . Report::commas($clients) . ' clients',
        target => 10, more => 1, values => \%values);

    $_->close for values %load;
    $_->{stop}->() for @servers;
}

1;
