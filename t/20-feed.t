# The feed: one connection per hub and node, what is subscribed, who feeds.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;

sub status ($ngx, $hub = 0) {
    return decode_json(get($ngx, '/status')->body)->{hubs}[$hub];
}

sub channels ($redis) { return @{$redis->cmd(PUBSUB => 'CHANNELS')} }

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$  { rt_subscribe app $channel; }
    location ~ ^/two/(?<channel>.+)$ { rt_subscribe two $channel; }
    location /publish { rt_publish app $arg_channel; }
    location /status { rt_status json; }
END

subtest 'one connection for each hub, whatever the workers' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 6, http => <<'END',
        rt_hub app { redis %%REDIS%%; zone 4m; inactive 1s; }
        rt_hub two { redis %%REDIS%%/2; zone 4m; prefix t:; }
END
        server => $server);

    wait_ok { $redis->clients == 2 } 5, 'two hubs, two connections';

    get($ngx, '/rt/a') for 1 .. 12;
    get($ngx, '/two/a');
    $redis->wait_sub('a');
    $redis->wait_sub('t:a');
    is($redis->numsub('a'), 1, 'subscribed once');
    my @sse = map { RT::SSE->new($ngx, '/rt/a') } 1 .. 12;
    stays { $redis->clients == 2 && $redis->numsub('a') == 1 } 0.3,
        'streams add nothing';
    is_deeply([sort { $a <=> $b } map { $_->{db} } $redis->clients], [0, 2],
        'each in its database');

    is($redis->publish(a => 'hello'), 1, 'one receiver');
    $_->expect('hello') for @sse;

    # what is followed stays, what is not goes
    get($ngx, '/rt/gone');
    $redis->wait_sub('gone');
    wait_ok { $redis->numsub('gone') == 0 } 8, 'inactive: unsubscribed';
    is($redis->numsub('a'), 1, 'followed: still subscribed');
    $_->close for splice @sse;
    wait_ok { $redis->numsub('a') == 0 } 8, 'and not any more';
    is_deeply([channels($redis)], ['t:a'], 'nothing else is left');

    get($ngx, '/rt/gone');
    ok($redis->wait_sub('gone'), 'asked for again, subscribed again');
    is($redis->clients, 2, 'two connections still');
    is(scalar($ngx->log(qr/\[error\]/)), 0, 'no error in the log');
    is(scalar(my @live = $ngx->log(qr/live, fed by Redis/)), 2, 'two lines');
};

# also on a busy machine, where a worker may be born late
subtest 'hubs are spread over the workers' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        http => <<'END', server => $server);
        rt_hub app { redis %%REDIS%%; }
        rt_hub two { redis %%REDIS%%; prefix t:; }
END
    wait_for { $redis->clients == 2 } 8, 'two connections';
    my %feeder = map { status($ngx, $_)->{feed}{worker} => 1 } 0, 1;
    $ngx->stop;
    is(scalar keys %feeder, 2, 'two hubs, two workers');
};

subtest 'login: password, user, database, a UNIX socket' => sub {
    my $redis = RT::Redis->new(args => [requirepass => 's3cret'],
                               password => 's3cret');
    $redis->cmd(ACL => 'SETUSER', 'reader', 'on', '>p@ss', '+@all', '~*',
                '&*');
    my $file = dir() . '/password';
    RT::spew($file, "p\@ss\n");
    my $unix = $redis->socket;
    my $via = -S $unix ? "unix:$unix" : 'redis://127.0.0.1:' . $redis->port;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        vars => { FILE => $file, UNIX => $via, RPORT => $redis->port },
        http => <<'END', server => $server);
        rt_hub app { redis %%REDIS%%/3; }
        rt_hub two { redis %%UNIX%%; redis_user reader;
                     redis_password_file %%FILE%%; }
        rt_hub esc { redis redis://reader:p%40ss@127.0.0.1:%%RPORT%%; }
END
    wait_ok { $redis->clients == 3 } 5, 'three connections';
    is_deeply([sort map { "$_->{user} $_->{db}" } $redis->clients],
        ['default 3', 'reader 0', 'reader 0'], 'who and where');
    get($ngx, "/$_/x") for qw(rt two);
    wait_ok { $redis->numsub('x') == 2 } 5, 'both subscribe';
    is(post($ngx, '/publish?channel=x', 'y')->status, 202, 'published');
    wait_ok { get($ngx, '/rt/x')->body eq 'y' } 2, 'and read';
    unlike($ngx->log, qr/s3cret|p\@ss/, 'no password in the log');
};

subtest 'the feeder dies, or does not move' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 3, http => <<'END',
        rt_hub app { redis %%REDIS%%; }
        rt_hub two { redis %%REDIS%%; prefix t:; }
END
        server => $server);
    wait_for { $redis->clients == 2 } 5, 'live';
    my $sse = RT::SSE->new($ngx, '/rt/a');
    $redis->wait_sub('a');

    my $feeder = status($ngx)->{feed}{worker};
    # the stream may be in that worker: a cursor brings it back
    $redis->publish(a => 'before');
    $sse->expect('before');

    my $start = time;
    $ngx->kill_worker(KILL => $feeder);
    wait_ok {
        my $s = eval { status($ngx) } or return 0;
        $s->{feed}{worker} != $feeder && $s->{feed}{state} eq 'live'
    } 2, 'killed: another one feeds';
    wait_ok { $redis->numsub('a') == 1 } 2, 'the channel is subscribed again';
    my $again = RT::SSE->new($ngx, '/rt/a', last => $sse->last_id);
    $redis->publish(a => 'after');
    my @events = ($again->event);
    push @events, $again->event if $events[0]{event} eq 'rt.gap';
    is($events[-1]{data}, 'after', 'and its messages come');

    # one that is stopped holds the lease for three seconds
    wait_for { $ngx->workers == 3 } 5, 'respawned';
    $feeder = status($ngx)->{feed}{worker};
    RT::freeze($feeder);
    my ($other) = grep { $_ != $feeder } $ngx->workers;
    wait_ok {
        # connections of clients may be waiting in the stopped worker
        my $s = eval { decode_json(get($ngx, '/status',
            timeout => 0.3)->body)->{hubs}[0] } or return 0;
        $s->{feed}{worker} != $feeder && $s->{feed}{state} eq 'live'
    } 6, 'stopped: another one feeds';
    kill CONT => $feeder;
    wait_ok { $redis->clients == 2 } 3, 'resumed: it lets go';
    stays { $redis->clients == 2 } 0.5, 'and does not come back';
    is(scalar(my @bad = $ngx->log(qr/\[error\]|\[crit\]/)), 0,
        'no error in the log');
};

subtest 'reload hands over' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 3, http => <<'END',
        rt_hub app { redis %%REDIS%%; }
        rt_hub two { redis %%REDIS%%; prefix t:; }
END
        server => $server);
    get($ngx, '/rt/a');
    $redis->wait_sub('a');
    for my $round (1 .. 3) {
        my %old = map { $_ => 1 } $ngx->workers;
        $ngx->reload;
        wait_ok {
            my $s = status($ngx);
            $s->{feed}{worker} && !$old{$s->{feed}{worker}}
                && $s->{feed}{state} eq 'live'
        } 2, "reload $round: fed by a new worker";
        wait_ok { $redis->clients == 2 && $redis->numsub('a') == 1 } 2,
            'one connection for each hub, the channel subscribed';
        $redis->publish(a => "message $round");
        wait_ok { get($ngx, '/rt/a')->body eq "message $round" } 2,
            'messages come';
    }
    is(status($ngx)->{feed}{reconnects}, 0, 'no reconnect: handed over');

    # old workers with streams to drain stay for a while, but do not feed
    my @sse = map { RT::SSE->new($ngx, '/rt/a') } 1 .. 24;
    my %old = map { $_ => 1 } $ngx->workers;
    $ngx->reload;
    wait_ok {
        my $s = status($ngx);
        $s->{feed}{worker} && !$old{$s->{feed}{worker}}
            && $s->{feed}{state} eq 'live'
    } 1.5, 'a feeder with streams hands over, too';
    ok(scalar($ngx->old_workers), 'and stays for them');
    wait_for { $redis->numsub('a') == 1 } 2, 'subscribed';
    $redis->publish(a => 'after');
    my @data = map {
        my $e;
        do { $e = $_->event(0.5) } while $e && $e->{data} ne 'after';
        $e ? 1 : ();
    } @sse;
    cmp_ok(scalar @data, '>', 0, 'they get what comes meanwhile');
    $_->close for @sse;
};

subtest 'messages: json, too large, no names of channels' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, http => <<'END', server => $server);
        rt_hub app { redis %%REDIS%%; payload json; message_max 1k;
                     subscribe 'p:*'; }
        rt_hub two { redis %%REDIS%%; message_max 1k; prefix t:;
                     subscribe '*'; }
END
    my $sse = RT::SSE->new($ngx, '/rt/a');
    my $two = RT::SSE->new($ngx, '/two/a');
    $redis->wait_sub('a');
    wait_for { $redis->cmd(PUBSUB => 'NUMPAT') == 2 } 5, 'patterns';

    $redis->publish(a => '{"data":"one","event":"news"}');
    my $e = $sse->event;
    is("$e->{event} $e->{data}", 'news one', 'an envelope');
    $redis->publish(a => $_) for 'not json', '{"data":1,"event":"rt.x"}',
        '{"nothing":1}', '';
    $redis->publish(a => '{"data":{"n":2}}');
    $sse->expect('{"n":2}');
    wait_ok { status($ngx)->{messages}{dropped} == 4 } 2, 'four dropped';
    $ngx->wait_log(qr/message to "a" dropped: /);
    cmp_ok(scalar(my @lines = $ngx->log(qr/dropped/)), '<=', 2,
        'not a line for each');

    # escapes make an envelope larger than what it holds
    $redis->publish(a => '{"data":"' . '\u0041' x 1024 . '"}');
    is($sse->event->{data}, 'A' x 1024, 'message_max is for the data');
    $redis->publish(a => '{"data":"' . 'A' x 1025 . '"}');
    is($sse->event->{event}, 'rt.gap', 'one byte more: a gap');

    # a large one is passed over, whatever its size; nothing else suffers
    $redis->publish('t:a' => 'x' x 8_000_000);
    is($two->event(10)->{event}, 'rt.gap', 'eight megabytes: a gap');
    $redis->publish('t:a' => 'small');
    $two->expect('small');
    is(status($ngx, 1)->{messages}{dropped}, 1, 'counted');

    $redis->publish($_ => 'x') for "t:with space", 't:', "t:\x01",
        't:' . 'n' x 256, 't:' . 'n' x 100_000;
    wait_ok { status($ngx, 1)->{messages}{dropped} == 6 } 2,
        'no names of channels: dropped';
    is(scalar(my @e = $ngx->log(qr/\[error\]/)), 0, 'the feed stays');
    is(status($ngx, 1)->{feed}{reconnects}, 0, 'never reconnected');
};

subtest 'publish by a connection of its own' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, http => <<'END',
        rt_hub app { redis %%REDIS%%; prefix p:; payload json; }
        rt_hub two { redis %%REDIS%%; }
END
        server => $server . 'location /raw { rt_publish two $arg_channel; }');
    my $client = RT::RESP->new($redis->port);
    $client->cmd(SUBSCRIBE => 'p:a');
    my $r = post($ngx, '/publish?channel=a', qq{a "b"\n},
                 headers => ['RT-Event' => 'news']);
    is($r->status, 202, 'taken');
    is(decode_json($r->body)->{receivers}, 1, 'by one');
    is_deeply(decode_json($client->read->[2]),
        { data => qq{a "b"\n}, event => 'news' }, 'in an envelope');
    is(post($ngx, '/publish?channel=a', '')->status, 202, 'an empty one');
    is($client->read->[2], '{"data":""}', 'an empty one');
    isnt(post($ngx, '/publish?channel=a', "\xff")->status, 202,
        'not UTF-8: refused');
    is(post($ngx, '/raw?channel=p:a', "\xff\x00")->status, 202, 'raw: taken');
    is($client->read->[2], "\xff\x00", 'raw: as it is');

    my $http = RT::HTTP->new($ngx);
    $http->send(POST => '/publish?channel=a', body => "m$_") for 1 .. 200;
    is(scalar(grep { $http->read->status == 202 } 1 .. 200), 200,
        '200 on one connection');
    is_deeply([map { decode_json($client->read->[2])->{data} } 1 .. 200],
        [map { "m$_" } 1 .. 200], 'in their order');
    is(scalar(grep { $_->{cmd} eq 'publish' } $redis->clients), 2,
        'one connection for each hub that publishes');

    # a connection that Redis has closed meanwhile is no error
    $redis->cmd(CLIENT => KILL => TYPE => 'normal');
    is(post($ngx, '/publish?channel=a', 'again')->status, 202,
        'closed by Redis, opened again');
};

subtest 'whatever happens: once, in order, or a gap' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 3, http => <<'END',
        rt_hub app { redis %%REDIS%%; redis_reconnect 20ms 50ms;
                     history 1000; }
        rt_hub two { redis %%REDIS%%; prefix t:; }
END
        server => $server);
    my @streams = map { { last => undef, seen => -1, gap => 1, bad => [] } }
        1 .. 5;
    my @faults = ('killed', 'cut', 'reload', 'stopped') x 2;
    my ($n, $gaps, %resume) = (0, 0);

    my $take = sub ($s, $e) {
        $s->{last} = $e->{id};
        if ($e->{event} eq 'rt.gap') {
            $s->{gap} = 1;
            $gaps++;
            return;
        }
        push @{$s->{bad}}, "$e->{data} after $s->{seen}"
            if !$s->{gap} && $e->{data} != $s->{seen} + 1;
        $s->{gap} = 0;
        $s->{seen} = $e->{data};
    };
    my $read = sub ($s) {
        $s->{sse} //= eval { RT::SSE->new($ngx, '/rt/a', timeout => 1,
            last => $s->{last}) } or return;
        while (my $e = $s->{sse}->event(0.001)) { $take->($s, $e) }
        delete $s->{sse} if $s->{sse}{eof};
    };

    while (@faults) {
        for my $round (1 .. 80) {
            $redis->publish(a => $n++) for 1 .. 3;
            $read->($_) for @streams;
            select undef, undef, undef, 0.005;
        }
        for my $pid (grep { $resume{$_} < time } keys %resume) {
            kill CONT => $pid;
            delete $resume{$pid};
        }
        my $s = eval { decode_json(get($ngx, '/status', timeout => 0.5)->body)
                     } or next;
        my $feeder = $s->{hubs}[0]{feed}{worker} or next;
        my $fault = shift @faults;
        if ($fault eq 'killed') { $ngx->kill_worker(KILL => $feeder) }
        if ($fault eq 'reload') { $ngx->signal('HUP') }
        if ($fault eq 'cut') {
            $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
        }
        if ($fault eq 'stopped') {
            RT::freeze($feeder);
            $resume{$feeder} = time + 4;
        }
    }
    kill CONT => $_ for keys %resume;
    wait_for { $redis->numsub('a') == 1 } 5, 'subscribed at last';
    $redis->publish(a => $n);
    wait_ok {
        $read->($_) for @streams;
        @streams == grep { $_->{seen} == $n } @streams;
    } 5, "all streams come to the last of $n messages";
    is_deeply([map { @{$_->{bad}} } @streams], [],
        'nothing lost or repeated without a gap');
    cmp_ok($gaps, '>', 0, "$gaps gaps were told");
    wait_ok { $redis->clients == 2 } 5, 'two hubs, two connections';
};

done_testing;
