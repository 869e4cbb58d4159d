package Part::Polls;

# CPU time of the server for each poll.

use v5.36;
use Bench;
use Report;
use RT;
use Servers;

our %sizes = (
    full  => { polls => 40_000, table => 100_000 },
    quick => { polls => 4000,   table => 10_000 },
    smoke => { polls => 300,    table => 200 },
);

sub seconds ($size, $rounds) {
    return $rounds * $size->{polls} * 10 / 45_000 + $size->{table} / 7000 + 2;
}

# a hub whose table has as many channels, and one of one channel
sub server ($table) {
    my $redis = $Bench::redis;
    my $ngx = Servers::ours('rt_hub many { zone 256m; history 1; subscribe m*;
                                           redis %%REDIS%%; }', <<'S');
        location ~ ^/many/(?<channel>\w+)$ { rt_subscribe many $channel; }
        location ~ ^/gate/(?<channel>\w+)$ {
            rt_gate app $channel;
            rewrite ^ /small.txt break;
        }
        location ~ ^/gates/(?<channel>\w+)$ {
            rt_gate many $channel;
            rewrite ^ /small.txt break;
        }
S
    RT::spew($ngx->dir . '/html/small.txt', "the application's\n");

    get($ngx, '/sse/c0');
    Servers::channels_live('c0', 1);
    $redis->publish(c0 => 'x' x 200);
    RT::poll_until(sub { $redis->cmd(PUBSUB => 'NUMPAT') }, 10)
        // die "the pattern is not subscribed\n";
    my $fill = Bench::Load->new('fan', redis => $redis->port, clients => 0,
        channels => $table, name => 'm%u');
    $fill->run(0, $table);
    $fill->close;
    RT::poll_until(sub { Servers::hub($ngx, 'many')->{channels} >= $table }, 30)
        // die "$table channels are not in the table\n";
    Servers::hub($ngx, 'many')->{evicted} == 0
        or die "the zone is too small\n";
    return $ngx;
}

sub run ($size, $rounds, %) {
    my $table = $size->{table};
    Bench::progress('polls: a table of ' . Report::commas($table));
    my $bare = Bench::bare();
    my $ngx = server($table);
    my $pid = Servers::worker($ngx);

    my %ask = (
        bare304 => [$bare, path => '/304'],
        bare200 => [$bare, path => '/200', status => 200, body => 200],
        nginx   => [$ngx, path => '/204', status => 204],
        rt304   => [$ngx, path => '/sse/c0', etag => 1],
        rt200   => [$ngx, path => '/sse/c0', status => 200, body => 200],
        gate    => [$ngx, path => '/gate/c0', etag => 1],
        many304 => [$ngx, path => '/many/m%u', etag => 1, channels => $table],
        many200 => [$ngx, path => '/many/m%u', status => 200, body => 200,
                    channels => $table],
        manygate => [$ngx, path => '/gates/m%u', etag => 1,
                     channels => $table],
    );
    my %subs;
    for my $name (sort keys %ask) {
        my ($server, @args) = @{$ask{$name}};
        my $load = Bench::Load->new(poll => @args,
            port => ref $server eq 'HASH' ? $server->{port} : $server->port);
        my $of = $name =~ /^bare/ ? $bare->{pid} : $pid;
        $subs{$name} = sub { scalar Bench::cost($of, $load, 0,
                                                $size->{polls}) };
    }
    my $hits = sub { my @hubs = map { Servers::hub($ngx, $_) } qw(app many);
        return map { $_->{polls}{hit}, $_->{gate}{hit} } @hubs };
    my @before = $hits->();
    my %v = Bench::rounds($rounds, Bench::told('polls', 0.3, 1), %subs);
    my @after = $hits->();
    for my $i (0 .. 3) {
        my $n = $after[$i] - $before[$i];
        die "304 were answered by something else: $n\n"
            if $n != $rounds * $size->{polls};
    }

    for (['304', 'rt304', 'bare304', 1.08, '1 channel'],
         ['200 of 200 bytes', 'rt200', 'bare200', 1.2, '1 channel'],
         ['304 at rt_gate', 'gate', 'bare304', 1.08, '1 channel'],
         ['304', 'many304', 'bare304', 1.08],
         ['200 of 200 bytes', 'many200', 'bare200', 1.2],
         ['304 at rt_gate', 'manygate', 'bare304', 1.08])
    {
        my ($label, $ours, $floor, $target, $of) = @$_;
        $of //= Report::commas($table) . ' channels';
        Report::row(part => 'polls', unit => 'us per request',
            label => "$label, $of", target => $target, floor => 'return 204',
            values => { ngx_rt => $v{$ours}, 'return 204' => $v{nginx},
                        bare => $v{$floor} },
            is => $ours eq 'many304' ? 'poll' : undef);
    }
    Bench::end($bare);
}

1;
