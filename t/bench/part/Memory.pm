package Part::Memory;

# User memory of what only waits, and the kernel's for its sockets.

use v5.36;
use Bench;
use List::Util qw(max);
use Report;
use Servers;

our %sizes = (
    full => { streams => 10_000 }, quick => { streams => 1000 },
    smoke => { streams => 50 },
);

sub seconds ($size, $rounds) {
    return 6 * $size->{streams} / 6000 + 3;
}

sub run ($size, $rounds, %) {
    my $n = $size->{streams};
    my %values;
    my $measure = sub ($name, $server, @load) {
        Bench::progress("memory: $name, " . Report::commas($n)
            . ' connections', (keys %{$values{pss}}) / 6);
        my $kernel = Bench::kernel_memory();
        my $before = Bench::memory_of($server->{pid});
        my $load = Bench::Load->new(connect => keep => $n,
            port => $server->{port}, @load);
        my $after = Bench::memory_of($server->{pid});
        # both ends are of this machine, and so is all else that is done here
        $kernel = max(0, Bench::kernel_memory() - $kernel);
        $values{kernel}{$name} = [$kernel / $n / 2];
        $values{$_}{$name} = [($after->{$_} - $before->{$_}) / $n]
            for qw(pss anon);
        $load->close;
        Servers::hub($server->{ngx})->{streams}{sse}{opened} == $n
            or die "not $n streams\n" if $name eq 'ngx_rt';
        $server->{stop}->();
    };
    my @sse = (until => "\r\n\r\n", accept => 'text/event-stream');

    # each a fresh process: what is freed is used again, and would be free
    $measure->('keep-alive', Servers::rt('k'), path => '/small');
    $measure->('ngx_rt', Servers::rt('k'), path => '/sse/k0', @sse);
    $measure->('bare', Servers::bare('k'), path => '/sse/k0', @sse);
    for my $peer (Servers::others('o'),
                  Servers::peers('k', 'Nchan', 'Nchan by Redis', 'Node'))
    {
        $measure->($peer->{name}, $peer,
            path => $peer->{load}{path} =~ s/%u/0/r, @sse);
    }

    for (['PSS', 'pss', 'keep-alive', 1], ['private', 'anon', 'keep-alive', 1],
         ['kernel', 'kernel', ''])
    {
        my ($label, $field, $floor, $limit) = @$_;
        Report::row(part => 'memory', unit => 'KB per stream', is => $field,
            label => "$label, " . Report::commas($n) . ' idle streams',
            floor => $floor, limit => $limit, values => $values{$field});
    }
}

1;
