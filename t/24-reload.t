# A reload under load: the feed goes from worker to worker by a marker, and
# no client misses or repeats a message, or is told that it may.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;

my $server = <<'END2';
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location /status { rt_status json; }
END2

sub status ($ngx) { decode_json(get($ngx, '/status')->body)->{hubs}[0] }

# publishes to all channels at about 400 messages/s until the end
sub load ($redis, $swarm, $n, @channels) {
    my ($sent, $start) = (0, time);
    return (sub {
        while ($sent < (time - $start) * 400) {
            $redis->publish($channels[$sent % @channels], $sent);
            $sent++;
        }
    }, sub { $sent });
}

sub check ($swarm, $streams, $sent, @channels) {
    my ($bad, $gaps) = (0, 0);
    for my $i (0 .. $streams - 1) {
        my $want = join ' ', grep { $_ % @channels == $i % @channels }
            0 .. $sent - 1;
        $bad++ if "@{$swarm->data($i)}" ne $want;
        $gaps += @{$swarm->gaps($i)};
    }
    is($bad, 0, "$sent messages on @{[scalar @channels]} channels: each "
        . "stream has its own once and in order");
    return $gaps;
}

for my $case (['by name', ''], ['by pattern', "subscribe '*';"]) {
    my ($name, $more) = @$case;
    subtest "eight reloads, subscribed $name" => sub {
        my $redis = RT::Redis->new;
        my $ngx = RT::Nginx->new(redis => $redis, workers => 3,
            http => "rt_hub app { redis %%REDIS%%; history 1000; $more }",
            server => "rt_drain 300ms; rt_retry 50ms; $server");
        my @channels = map { "c$_" } 1 .. 20;
        my $swarm = RT::Swarm->new($ngx, reconnect => 1, retry => 20);
        $swarm->open(map { "/rt/$channels[$_ % 20]" } 0 .. 59);
        if ($more) { wait_for { $redis->cmd(PUBSUB => 'NUMPAT') } 5, 'live' }
        else       { $redis->wait_sub($_) for @channels }
        wait_for { $swarm->pump(0.01);
                   60 == grep { defined $_->last_id } $swarm->streams }
            5, 'all have a place';

        my ($publish, $sent) = load($redis, $swarm, 0, @channels);
        my $run = sub ($cond, $seconds, $what) {
            my $end = time + RT::scale($seconds);
            my $ok;
            while (!($ok = $cond->()) && time < $end) {
                $publish->();
                $swarm->pump(0.005);
            }
            ok($ok, $what);
        };
        for my $round (1 .. 8) {
            my %old = map { $_ => 1 } $ngx->workers;
            $ngx->signal('HUP');
            $run->(sub {
                my @now = $ngx->workers;
                return 0 if @now != 3 || grep { $old{$_} } @now;
                my $s = eval { status($ngx) } or return 0;
                return !$old{$s->{feed}{worker}};
            }, 8, "reload $round: another worker feeds");
        }
        my $total = $sent->();
        $swarm->run(sub { $swarm->count >= $total * 3 }, 10, 'all arrived');
        is(check($swarm, 60, $total, @channels), 0, 'no gap was told');
        my $s = status($ngx);
        is($s->{feed}{reconnects}, 0, 'the feed was never away');
        is($s->{feed}{gaps}, 0, 'and had no gap');
        is($s->{channels}, 20, 'the marker is no channel');
        is(scalar(my @l = $ngx->log(qr/without a gap/)), 8, 'eight lines');
        wait_ok { !$ngx->old_workers } 5, 'old workers end';
        is_deeply([grep { /rt\.cut/ } @{$redis->cmd(PUBSUB => 'CHANNELS')}],
            [], "nobody listens to the markers any more");
        $swarm->close;
    };
}

subtest 'new channels, meanwhile and afterwards' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        http => 'rt_hub app { redis %%REDIS%%; inactive 1s; }',
        server => $server);
    get($ngx, "/rt/old$_") for 1 .. 3;
    $redis->wait_sub("old$_") for 1 .. 3;
    my %old = map { $_ => 1 } $ngx->workers;
    $ngx->signal('HUP');
    my $n = 0;
    wait_for { get($ngx, '/rt/new' . ++$n); !$old{status($ngx)->{feed}{worker}}
        } 5, 'handed over';
    wait_ok { $n == grep { $redis->numsub("new$_") == 1 } 1 .. $n } 5,
        "$n channels of meanwhile are subscribed";
    wait_ok { !grep { /old/ } @{$redis->cmd(PUBSUB => 'CHANNELS')} } 8,
        'what nobody uses is left by the new feeder';
};

subtest 'where it can not be handed over there is a gap' => sub {
    my $redis = RT::Redis->new;
    $redis->cmd(ACL => 'SETUSER', 'nopub', 'on', '>x', '+@all', '~*', '&*',
                '-publish');
    $redis->cmd(ACL => 'SETUSER', 'nomark', 'on', '>x', '+@all', '~*',
                'resetchannels', '&c');
    for my $user (qw(nopub nomark)) {
        my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
            vars => { URL => "redis://$user:x\@127.0.0.1:" . $redis->port },
            http => 'rt_hub app { redis %%URL%%; }',
            server => "rt_drain 30s; $server");
        my $sse = RT::SSE->new($ngx, '/rt/c');
        $redis->wait_sub('c');
        $redis->publish(c => 'one');
        $sse->expect('one');
        my %old = map { $_ => 1 } $ngx->workers;
        $ngx->signal('HUP');
        my $e = $sse->event(3);
        is($e && $e->{event}, 'rt.gap', "$user: a gap is told");
        wait_ok { my $s = status($ngx);
            !$old{$s->{feed}{worker}} && $s->{feed}{state} eq 'live' } 3,
            "$user: another worker feeds";
        $redis->wait_sub('c');
        $redis->publish(c => 'two');
        $sse->expect('two');
        $sse->close;
        $ngx->stop;
    }
};

subtest 'another pattern: a gap' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        http => 'rt_hub app { redis %%REDIS%%; }',
        server => "rt_drain 30s; $server");
    my $sse = RT::SSE->new($ngx, '/rt/c');
    $redis->wait_sub('c');
    $ngx->reload(http => "rt_hub app { redis %%REDIS%%; subscribe 'c*'; }");
    my $e = $sse->event(3);
    is($e && $e->{event}, 'rt.gap', 'told');
    wait_for { $redis->cmd(PUBSUB => 'NUMPAT') == 1 } 3, 'pattern';
    $redis->publish(c => 'two');
    $sse->expect('two');
};

subtest 'the heir dies' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 1,
        http => 'rt_hub app { redis %%REDIS%%; history 1000; }',
        server => "rt_drain 30s; $server");
    my $sse = RT::SSE->new($ngx, '/rt/c');
    $redis->wait_sub('c');
    my ($old) = $ngx->workers;
    $ngx->signal('HUP');
    my $new = wait_for { (grep { $_ != $old } $ngx->workers)[0] } 5, 'born';
    RT::freeze($new);
    wait_for { $ngx->old_workers } 5, 'the old one quits';
    $redis->publish(c => $_) for 1 .. 20;
    $sse->expect(1 .. 20);
    $ngx->kill_worker(KILL => $new);
    my ($n, $seen, $gap) = (21, 20, 0);
    wait_ok {
        $redis->publish(c => $n++);
        while (my $e = $sse->event(0.01)) {
            if ($e->{event} eq 'rt.gap') { $gap++; $seen = -1; next }
            fail("$e->{data} after $seen")
                if $seen >= 0 && $e->{data} != $seen + 1;
            $seen = $e->{data};
        }
        my $s = eval { status($ngx) };
        $s && $s->{feed}{worker} != $old && $s->{feed}{worker} != $new
            && $s->{feed}{state} eq 'live';
    } 8, 'the next one feeds';
    ok(1, "$n messages, $gap gaps, nothing lost in silence");
    $sse->close;
};

subtest "a marker counts for the heir that sent it" => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 1,
        http => 'rt_hub app { redis %%REDIS%%; history 1000; }',
        server => "rt_drain 30s; $server");
    my $sse = RT::SSE->new($ngx, '/rt/c');
    $redis->wait_sub('c');
    my $ear = RT::RESP->new($redis->port);
    $ear->cmd(PSUBSCRIBE => 'rt.cut.*');
    my ($feeder) = $ngx->workers;
    $ngx->signal('HUP');
    my $first = wait_for { (grep { $_ != $feeder } $ngx->workers)[0] } 5,
        'born';
    RT::freeze($first);
    wait_for { @{$redis->cmd(PUBSUB => CHANNELS => 'rt.cut.*')} } 5,
        'offered';
    # the one that feeds hears nothing from here on
    RT::freeze($feeder);
    kill CONT => $first;
    is(eval { $ear->read->[0] }, 'pmessage', 'the first heir has a marker');
    $redis->publish(c => $_) for 1 .. 5;
    $ngx->kill_worker(KILL => $first);
    is(eval { $ear->read->[0] }, 'pmessage', 'so has the second');
    $redis->publish(c => $_) for 6 .. 9;
    kill CONT => $feeder;
    $sse->expect(1 .. 9);
    wait_ok { my $s = eval { status($ngx) };
        $s && $s->{feed}{worker} != $feeder && $s->{feed}{worker} != $first
            && $s->{feed}{gaps} == 0 } 5, 'which feeds';
    $redis->publish(c => 10);
    $sse->expect(10);
    $sse->close;
};

subtest 'quit is not held up' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 3,
        http => 'rt_hub app { redis %%REDIS%%; }', server => $server);
    get($ngx, '/rt/c');
    $redis->wait_sub('c');
    $ngx->stop;
    cmp_ok($ngx->{quit_took}, '<', RT::scale(1), 'ends within a second');
};

done_testing;
