# Whatever had become of Redis: from its return it takes one second and the
# reconnect delay until all is live again; and what clients see meanwhile.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use RT;
use Time::HiRes qw(time);

my $bound = 1 + 0.4;            # and the longest redis_reconnect

my $redis = RT::Redis->new(start => 0, args => [requirepass => 'right'],
                           password => 'right');
my @nginx = (redis => $redis, workers => 3, http => <<'END',
    rt_hub app  { zone 8m; redis %%REDIS%%; redis_timeout 400ms 400ms;
                  redis_reconnect 100ms 400ms; }
    rt_hub keep { zone 8m; redis %%REDIS%%; redis_timeout 400ms 400ms;
                  redis_reconnect 100ms 400ms; stale 1s; prefix k:; }
    rt_retry 100ms;
END
    server => <<'END');
    location ~ ^/rt/(?<channel>[\w,]+)$  {
        rt_subscribe app $channel; rt_heartbeat 200ms;
    }
    location ~ ^/keep/(?<channel>\w+)$ { rt_subscribe keep $channel; }
    location = /status { rt_status json; }
END

sub hub ($ngx, $name = 'app') {
    my $hubs = decode_json(get($ngx, '/status')->body)->{hubs};
    return (grep { $_->{name} eq $name } @$hubs)[0];
}

sub live ($ngx) { return hub($ngx)->{feed}{state} eq 'live' }

sub lines ($ngx) {
    return $ngx->log(qr/rt_hub "app": (?:live|lost|no feed)/);
}

# heartbeats keep coming on every stream
sub beating ($swarm, $text) {
    my @before = map { scalar(my @t = $_->comments) } $swarm->streams;
    my @streams = $swarm->streams;
    $swarm->run(sub {
        !grep { $streams[$_]->comments <= $before[$_] } 0 .. $#streams
    }, 3, "$text: heartbeats on all streams");
}

sub poll ($ngx, $path, $etag = undef) {
    return get($ngx, $path,
        headers => [$etag ? ('If-None-Match' => $etag) : ()]);
}

# BACK makes Redis what it should be; DONE is true when all is live again
sub back_in_time ($back, $done, $text) {
    $back->();
    my $start = time;
    my $ok = RT::poll_until(sub { eval { $done->() } }, 10 + $bound);
    my $took = time - $start;
    ok($ok && $took <= RT::scale($bound),
        sprintf '%s: live %.2f s after its return', $text, $took);
    return $ok;
}

my $streams = 12;
my $ngx;
my $swarm;
my @workers;

sub subscribed {
    return live($ngx) && $redis->numsub('c11')
        && @{$redis->cmd(PUBSUB => 'CHANNELS', 'c*')} == $streams;
}

# each stream gets what is published now, exactly once
sub goes_on ($text) {
    my @had = map { scalar @{$swarm->data($_)} } 0 .. $streams - 1;
    $redis->publish("c$_", $text) for 0 .. $streams - 1;
    my $n = $swarm->count + $streams;
    $swarm->run(sub { $swarm->count >= $n }, 3, "$text: messages come");
    is_deeply([map { [@{$swarm->data($_)}[$had[$_] .. $#{$swarm->data($_)}]] }
        0 .. $streams - 1], [([$text]) x $streams], "$text: each once");
    is(scalar(grep { $swarm->connects($_) != 1 } 0 .. $streams - 1), 0,
        "$text: streams were open all the time");
}

# absent at start

$ngx = RT::Nginx->new(@nginx);
@workers = $ngx->workers;
$swarm = RT::Swarm->new($ngx, reconnect => 1);
$swarm->open(map { "/rt/c$_" } 0 .. $streams - 1);
beating($swarm, 'absent');
my $r = poll($ngx, '/rt/c0');
is($r->status, 503, 'absent: a poll is told');
ok($r->header('Retry-After'), 'and when to ask again');
stays { $swarm->pump(0.05); lines($ngx) == 1 } 1, 'absent: one line';
back_in_time(sub { $redis->start }, \&subscribed, 'absent at start');
goes_on('absent at start');
wait_ok { lines($ngx) == 2 } 3, 'absent at start: one line more';

# then gone, in all ways

my $fake;
my $kill_pubsub = sub { $redis->cmd(CLIENT => KILL => TYPE => 'pubsub') };

sub instead (%answers) {
    $redis->stop;
    $fake = RT::FakeRedis->new(port => $redis->port,
        script => sub ($conn, @cmd) {
            return if !defined $answers{reply};
            $conn->raw($answers{reply});
        });
}

my @cases = (
    ['killed', sub { $redis->kill9 }, sub { $redis->start }],
    ['stopped', sub { $redis->pause }, sub { $redis->resume }],
    ['stopped and killed', sub { $redis->pause },
        sub { $redis->kill9; $redis->start }],
    ['garbage', sub { instead(reply => "HTTP/1.1 400 Bad Request\r\n\r\n") },
        sub { $fake->stop; $redis->start }],
    ['deaf', sub { instead(reply => undef) },
        sub { $fake->stop; $redis->start }],
    ['loading', sub { instead(reply =>
            "-LOADING Redis is loading the dataset in memory\r\n") },
        sub { $fake->stop; $redis->start }],
    ['too many clients', sub {
            $redis->cmd(CONFIG => SET => maxclients => 1);
            $kill_pubsub->();
        }, sub { $redis->cmd(CONFIG => SET => maxclients => 1000) }],
    ['password changed', sub {
            $redis->cmd(CONFIG => SET => requirepass => 'other');
            $kill_pubsub->();
        }, sub { $redis->cmd(CONFIG => SET => requirepass => 'right') }],
);

for my $case (@cases) {
    my ($name, $away, $back) = @$case;

    # what was published before, and its version
    wait_for { poll($ngx, '/keep/a')->status =~ /20[04]/
               && $redis->numsub('k:a') } 5, 'keep is live';
    $redis->publish('k:a', $name);
    wait_for { poll($ngx, '/keep/a')->body eq $name } 3, 'retained';
    my $keep = poll($ngx, '/keep/a')->header('ETag');
    my $body = poll($ngx, '/rt/c0')->body;
    my $etag = poll($ngx, '/rt/c0')->header('ETag');
    is(poll($ngx, '/rt/c0', $etag)->status, 304, "$name: current before");

    my $lines = lines($ngx);
    my @gaps = map { scalar @{$swarm->gaps($_)} } 0 .. $streams - 1;
    $away->();
    RT::poll_until(sub { $swarm->pump(0.01);
                         hub($ngx)->{feed}{state} ne 'live' }, 5)
        or fail("$name: not noticed");
    my $stale = time + 1;

    my $r = poll($ngx, '/rt/c0', $etag);
    is($r->status . ' ' . $r->body . ' ' . ($r->header('ETag') // 'no ETag'),
        "200 $body no ETag", "$name: a poll gets what is retained");
    $r = poll($ngx, "/rt/new$lines");
    is($r->status . ($r->header('Retry-After') ? ' later' : ''), '503 later',
        "$name: or is told");
    if ($name eq 'killed') {
        is(poll($ngx, '/keep/a', $keep)->status, 304, 'within stale: 304');
        wait_ok { $swarm->pump(0.01);
                  poll($ngx, '/keep/a', $keep)->status == 200 } 2, 'then 200';
        cmp_ok(time - $stale, '>', -0.2, 'not before');
        $r = poll($ngx, '/keep/a', $keep);
        is($r->body . ($r->header('ETag') // ''), $name, 'without ETag');
    }
    beating($swarm, $name);
    # until the delay between two tries is the longest
    stays { $swarm->pump(0.05); !live($ngx) } 1, "$name: away";
    is($swarm->live, $streams, "$name: streams are open");
    my @new = (lines($ngx))[$lines .. lines($ngx) - 1];
    # refused after having been away is another change
    my @refused = grep { /Redis says/ } @new;
    ok(@new == 1 || (@new == 2 && @refused == 1),
        "$name: a line for a change") or diag(join "\n", @new);
    like($new[0], qr/\[error\].* lost Redis 127/, "$name: which says it");

    $lines = lines($ngx);
    back_in_time($back, \&subscribed, $name);
    goes_on($name);
    is(scalar(grep { @{$swarm->gaps($_)} != $gaps[$_] + 1 }
        0 .. $streams - 1), 0, "$name: each was told of one gap");
    wait_ok { lines($ngx) == $lines + 1 } 3, "$name: one line more";
    $etag = poll($ngx, '/rt/c0')->header('ETag');
    is(poll($ngx, '/rt/c0', $etag)->status, 304, "$name: current again");
    is_deeply([$ngx->workers], \@workers, "$name: the same workers");
}
$swarm->close;
$ngx->stop;

# the delays: doubled up to the longest, with jitter; anew after a connection
# that was steady, not after one that ended at once

{
    my ($min, $max) = (0.1, 0.8);
    my $port = RT::free_port();
    my ($listener, @times);
    my $listen = sub {
        $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
            LocalPort => $port, Listen => 16, ReuseAddr => 1) or die "$!\n";
    };
    # takes connections until N, answers PING when asked to, closes them
    my $take = sub ($n, $answer) {
        @times = ();
        my $end = time + RT::scale(20);
        while (@times < $n && time < $end) {
            my $bits = '';
            vec($bits, fileno $listener, 1) = 1;
            select $bits, undef, undef, 1 or next;
            my $c = $listener->accept or next;
            push @times, time;
            if ($answer) {
                sysread $c, my $ping, 1000;
                syswrite $c, "+PONG\r\n";
            }
            close $c;
        }
        return map { $times[$_] - $times[$_ - 1] } 1 .. $#times;
    };
    my $bounds = sub ($text, $first, @delays) {
        my @bad;
        for my $i (0 .. $#delays) {
            my $d = $min * 2 ** ($first + $i);
            $d = $max if $d > $max;
            push @bad, $i if $delays[$i] < $d / 2 - 0.02
                || $delays[$i] > RT::scale($d + 0.25);
        }
        is(scalar @bad, 0, "$text: "
            . join ' ', map { sprintf '%.2f', $_ } @delays);
    };

    $listen->();
    my $ngx = RT::Nginx->new(vars => { URL => "redis://127.0.0.1:$port" },
        http => 'rt_hub app { redis %%URL%%; redis_reconnect 100ms 800ms; }',
        server => 'location = /status { rt_status json; }');
    my @delays = $take->(9, 0);
    $bounds->('each doubled', 0, @delays);
    my @long = sort { $a <=> $b } @delays[3 .. $#delays];
    cmp_ok($long[-1] - $long[0], '>', 0.02, 'they vary');

    # the one whose connection ends at once: they stay long
    $bounds->('live for a moment', 3, $take->(4, 1));

    # a steady one
    close $listener;
    my $fake = RT::FakeRedis->new(port => $port);
    wait_for { live($ngx) } 5, 'live';
    wait_for { hub($ngx)->{feed}{since} > 1.2 } 5, 'steady';
    $fake->deaf;
    $listen->();
    my $lost = time;
    $fake->drop;
    @delays = $take->(4, 0);
    cmp_ok($times[0] - $lost, '<=', RT::scale($min + 0.25),
        'after a steady one the shortest');
    $bounds->('and from there', 1, @delays);
    close $listener;
    $fake->listen;
    wait_ok { live($ngx) } 1 + $max, 'live at last';
    $ngx->stop;
}

# 5,000 channels

{
    my $ngx = RT::Nginx->new(@nginx);
    my ($n, $each) = (5000, 25);
    my $swarm = RT::Swarm->new($ngx, reconnect => 1);
    $swarm->open(map { my $i = $_;
        '/rt/' . join ',', map { 'm' . ($i * $each + $_) } 0 .. $each - 1
    } 0 .. $n / $each - 1);
    my $all = sub {
        live($ngx) && @{$redis->cmd(PUBSUB => 'CHANNELS', 'm*')} == $n;
    };
    wait_ok { $all->() } 10, "$n channels";
    $redis->kill9;
    wait_for { !live($ngx) } 3, 'noticed';
    stays { $swarm->pump(0.05); !live($ngx) } 1, 'away';
    back_in_time(sub { $redis->start }, $all, "$n channels");
    $redis->pipeline(map { [PUBLISH => "m$_", "text $_"] } 0 .. $n - 1);
    $swarm->run(sub { $swarm->count >= $n }, 10, 'all of them come');
    my @wrong = grep {
        my $i = $_;
        "@{$swarm->data($i)}" ne join ' ',
            map { 'text ' . ($i * $each + $_) } 0 .. $each - 1;
    } 0 .. $n / $each - 1;
    is(scalar @wrong, 0, 'each once, in order');
    is($swarm->live, $n / $each, 'on streams that were open all the time');
    $swarm->close;
    $ngx->stop;
}

# inactive

{
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
        rt_hub app { zone 8m; redis %%REDIS%%; inactive 1s;
                     subscribe 'warm*'; }
END
        server => <<'END');
        location ~ ^/rt/(?<channel>\w+)$ {
            rt_subscribe app $channel; rt_start history;
        }
        location = /status { rt_status json; }
END
    wait_for { live($ngx) } 5, 'live';
    my $sse = RT::SSE->new($ngx, '/rt/kept');
    poll($ngx, "/rt/u$_") for 1 .. 50;
    wait_ok { @{$redis->cmd(PUBSUB => 'CHANNELS', 'u*')} == 50 } 5,
        'inactive: subscribed when asked for';
    my ($etag) = (poll($ngx, '/rt/u1')->header('ETag'));
    is(hub($ngx)->{channels}, 51, 'known');
    wait_ok { @{$redis->cmd(PUBSUB => 'CHANNELS', 'u*')} == 0 } 10,
        'unsubscribed when nobody asks any more';
    wait_ok { hub($ngx)->{channels} == 1 } 3, 'and forgotten';
    is($redis->numsub('kept'), 1, 'but not the one with a stream');
    is(hub($ngx)->{feed}{reconnects}, 0, 'over one connection');
    is(hub($ngx)->{evicted}, 0, 'which is no eviction');

    my $r = poll($ngx, '/rt/u1', $etag);
    is($r->status, 204, 'asked for again: nothing is known');
    isnt($r->header('ETag'), $etag, 'under another ETag');
    $redis->wait_sub('u1');
    $redis->publish(u1 => 'again');
    wait_ok { poll($ngx, '/rt/u1')->body eq 'again' } 3, 'and live again';
    $redis->publish(kept => 'x');
    $sse->expect('x');

    # under a pattern a message is use enough

    wait_for { $redis->cmd(PUBSUB => 'NUMPAT') } 3, 'the pattern';
    my ($n, $start) = (0, time);
    stays {
        $redis->publish(warm => $n++) if time > $start + $n * 0.12;
        1;
    } 6, 'published to for long';
    my $warm = RT::SSE->new($ngx, '/rt/warm');
    is(join(' ', map { $_->{data} } $warm->wait($n)),
        join(' ', 0 .. $n - 1), 'it has its whole history');
    $warm->close;
    wait_ok { hub($ngx)->{channels} == 1 } 10, 'without any it is forgotten';
}


# Connected again, but a channel not yet subscribed again: what its clients
# have may be old, also where it is the very ETag of what is known.
{
    my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
        $conn->default(@cmd)
            if $conn->mode ne 'mute' || uc $cmd[0] ne 'SUBSCRIBE';
    });
    my $ngx = RT::Nginx->new(redis => $fake, server => <<'S', http => <<'H');
        location = /status { rt_status json; }
        location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
S
        rt_hub app { zone 8m; redis %%REDIS%%; redis_reconnect 10ms 20ms; }
H
    get($ngx, '/rt/mute');
    wait_for { $fake->push(mute => 'old') } 5, 'subscribed';
    my $etag = wait_for { my $r = get($ngx, '/rt/mute');
        $r->status == 200 && $r->header('ETag') } 5, 'something known';
    is(poll($ngx, '/rt/mute', $etag)->status, 304, 'which is the latest');

    $fake->mode('mute');
    $fake->drop;
    wait_ok { hub($ngx)->{feed}{reconnects} == 1 && live($ngx) } 5,
        'live again, but for the channel';
    is(poll($ngx, '/rt/mute', $etag)->status, 200, 'of which nobody knows');
}

done_testing;
