# `source stream`: whatever happens to connections, Redis or the feeder, no
# entry is lost, none comes twice, and nobody is told of a gap.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use Time::HiRes qw(time);

my $streams = 20;
my $keys = 10;

my $redis = RT::Redis->new(args => [appendonly => 'yes',
    appendfsync => 'always']);
my $ngx = RT::Nginx->new(redis => $redis, workers => 3, http => <<'END',
    rt_hub app { zone 8m; redis %%REDIS%%; source stream; history 1000;
                 redis_timeout 400ms 1s; redis_reconnect 50ms 200ms; }
    rt_retry 50ms; rt_drain 300ms;
END
    server => <<'END');
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel;
                                       rt_start history; }
    location = /status { rt_status json; }
END

sub feed {
    return decode_json(get($ngx, '/status')->body)->{hubs}[0]{feed};
}

my @sent = (0) x $keys;
my $total = 0;

# one more entry to each; those that Redis has taken are the ones that count
sub publish ($n = 1) {
    for (1 .. $n) {
        for my $key (0 .. $keys - 1) {
            # taken, and the answer lost: then it is there already
            my $next = $sent[$key] + 1;
            my $ok = eval {
                $redis->cmd(XADD => "k$key", "$next-1", data => $next); 1 };
            $ok ||= $@ =~ /equal or smaller/;
            $sent[$key] = $next if $ok;
        }
    }
}

my $swarm = RT::Swarm->new($ngx, reconnect => 1);
publish(3);
$swarm->open(map { '/rt/k' . $_ % $keys } 0 .. $streams - 1);

sub all_there {
    publish();
    my @missing;
    my $done = sub {
        @missing = grep { @{$swarm->data($_)} < $sent[$_ % $keys] }
            0 .. $streams - 1;
        return !@missing;
    };
    my $end = time + RT::scale(10);
    $swarm->pump while !$done->() && time < $end;
    return !@missing;
}

sub exact ($text) {
    ok(all_there(), "$text: all arrive");
    my ($wrong, $gaps) = (0, 0);
    for my $i (0 .. $streams - 1) {
        my $want = join ' ', 1 .. $sent[$i % $keys];
        $wrong++ if "@{$swarm->data($i)}" ne $want;
        $gaps += @{$swarm->gaps($i)};
    }
    is($wrong, 0, "$text: each once, in order");
    is($gaps, 0, "$text: no gap");
    is(feed()->{gaps}, 0, "$text: none in the status");
}

# WHAT happens while entries come, and until DONE they go on coming
sub during ($text, $what, $done) {
    publish(5);
    $what->();
    my $end = time + RT::scale(8);
    my $ok;
    do {
        publish();
        $swarm->pump(0.01);
        $ok = eval { $done->() };
    } while (!$ok && time < $end);
    ok($ok, "$text: it happened and is over");
    exact($text);
}

exact('at first');

sub reconnected ($before) {
    my $feed = feed();
    return $feed->{state} eq 'live' && $feed->{reconnects} > $before;
}

my $n = feed()->{reconnects};
during('all connections killed', sub {
    $redis->cmd(CLIENT => KILL => TYPE => 'normal', SKIPME => 'yes');
}, sub { reconnected($n) });

$n = feed()->{reconnects};
during('a reader killed', sub {
    my ($reader) = grep { $_->{cmd} eq 'xread' } $redis->clients;
    $redis->cmd(CLIENT => KILL => ID => $reader->{id});
}, sub { reconnected($n) });
is(feed()->{reconnects}, $n + 1, 'that is one reconnect');

$n = feed()->{reconnects};
during('the control connection killed', sub {
    my ($feed) = grep { $_->{cmd} ne 'xread' } $redis->clients;
    $redis->cmd(CLIENT => KILL => ID => $feed->{id});
}, sub { reconnected($n) });

$n = feed()->{reconnects};
during('Redis killed and back', sub { $redis->restart },
    sub { reconnected($n) });

$n = feed()->{reconnects};
during('Redis stopped', sub {
    $redis->pause;
    wait_for { $swarm->pump(0.01); feed()->{state} ne 'live' } 5, 'noticed';
    $redis->resume;
}, sub { reconnected($n) });

my $worker = feed()->{worker};
during('the feeder killed', sub { $ngx->kill_worker(KILL => $worker) },
    sub { my $f = feed();
          $f->{worker} != $worker && $f->{state} eq 'live' });

$worker = feed()->{worker};
during('the feeder stopped and continued', sub {
    RT::freeze($worker);
    my $end = time + 4;             # its lease ends after 3
    while (time < $end) { publish(); $swarm->pump(0.02) }
    kill CONT => $worker;
}, sub { my $f = feed(); $f->{state} eq 'live' && $f->{worker} != $worker });

for my $i (1 .. 3) {
    my %old = map { $_ => 1 } $ngx->workers;
    during("reload $i", sub { $ngx->signal('HUP') }, sub {
        my $feed = feed();
        $feed->{state} eq 'live' && !$old{$feed->{worker}}
            && !grep { $old{$_} } $ngx->workers, $ngx->old_workers });
}

# a burst and a reload in it
{
    my $first = $sent[0] + 1;
    my $more = 5_000;
    my %old = map { $_ => 1 } $ngx->workers;
    $ngx->signal('HUP');
    for my $part (0 .. 9) {
        my $at = $first + $part * $more / 10;
        $redis->pipeline(map { [XADD => 'k0', "$_-1", data => $_] }
            $at .. $at + $more / 10 - 1);
        $swarm->pump(0.01);
    }
    $sent[0] += $more;
    RT::poll_until(sub { $swarm->pump(0.01);
        !grep { $old{$_} } $ngx->workers, $ngx->old_workers }, 10);
    exact("$more in a burst, and a reload");
}

done_testing;
