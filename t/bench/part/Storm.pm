package Part::Storm;

# All clients come back at once, each with its cursor, and get the messages that
# they missed: each exactly these, in order, and the next one after them.  The
# floor is nginx that accepts as many and answers each a small request.

use v5.36;
use Bench;
use List::Util qw(max sum);
use Report;
use Servers;

# loads: processes, each has an address and a share of the channels of its own
our %sizes = (
    full  => { clients => 20_000, missed => 10, channels => 100, loads => 2,
               workers => 2, rounds => 4 },
    quick => { clients => 2000, missed => 10, channels => 20, loads => 1,
               workers => 1 },
    smoke => { clients => 40, missed => 10, channels => 4, loads => 2,
               workers => 2 },
);

sub seconds ($size, $rounds) {
    return 2 + $rounds * $size->{clients} / 2500;
}

sub run ($size, $rounds, %) {
    my ($clients, $missed, $channels, $loads, $workers)
        = @$size{qw(clients missed channels loads workers)};
    Bench::progress('storm, opening');
    my $ngx = Servers::ours('rt_hub storm { zone 64m; redis %%REDIS%%;
                                            history 64; }', <<'S',
        location ~ ^/storm/(?<channel>\w+)$ { rt_subscribe storm $channel; }
S
        workers => $workers);
    my @pids = $ngx->workers;

    my $loads_of = sub (%opt) {
        return [map { Bench::Load->new('storm', port => $ngx->port,
            from => 1 + $_, clients => $clients / $loads,
            channels => $channels / $loads, path => "/storm/s${_}x%u",
            redis => $Bench::redis->port, name => "s${_}x%u", %opt) }
            1 .. $loads];
    };
    my %load = (ngx_rt => $loads_of->(),
                'keep-alive' => $loads_of->(plain => '/small'));
    Servers::channels_live('s*x*', $channels);

    my $tell = sub ($loads, @command) {
        $_->start(@command) for @$loads;
        return map { $_->finish } @$loads;
    };
    my %values = Bench::rounds($rounds, Bench::told('storm', 0.1),
        map { my $name = $_; ($name => sub {
            $tell->($load{$name}, 'post', 0, $missed) if $name eq 'ngx_rt';
            my $before = Bench::cpu_of(@pids);
            my @r = $tell->($load{$name}, 'run');
            my $cpu = Bench::cpu_of(@pids) - $before;
            my $done = sum(map { $_->{done} } @r);
            $done == $clients or die "storm: $done of $clients\n";
            $tell->($load{$name}, 'rest');
            return { cpu => $done * 1e6 / $cpu,
                     wall => $done / max(map { $_->{wall} } @r) };
        }) } keys %load);

    my $label = Report::commas($clients) . " clients x $missed";
    for (['cpu', 'clients per CPU second', 0.5, ''],
         ['wall', 'clients/s', undef, ', by the clock'])
    {
        my ($field, $unit, $target, $more) = @$_;
        Report::row(part => 'storm', unit => $unit, target => $target,
            more => 1, floor => 'keep-alive', label => $label . $more,
            values => Bench::pick($field, %values),
            is => $field eq 'cpu' ? 'storm' : undef);
    }
    $_->close for map { @$_ } values %load;
    $ngx->stop;
}

1;
