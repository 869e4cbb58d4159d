# `snapshot`: what is in a key fills a channel that is cold, or that may have
# missed something; never over a message that is as new or newer.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$    { rt_subscribe app $channel; }
    location ~ ^/two/(?<channel>.+)$   { rt_subscribe two $channel; }
    location ~ ^/plain/(?<channel>.+)$ { rt_subscribe plain $channel; }
    location ~ ^/json/(?<channel>.+)$  { rt_subscribe json $channel; }
    location = /status { rt_status json; }
END
my $hubs = <<'END';
    rt_hub app   { zone 8m; redis %%REDIS%%; snapshot s:; message_max 1k;
                   redis_reconnect 20ms 100ms; prefix k:; }
    rt_hub two   { zone 8m; redis %%REDIS%%; snapshot s:; prefix k:; }
    rt_hub plain { zone 8m; redis %%REDIS%%; redis_reconnect 20ms 100ms;
                   prefix k:; }
    rt_hub json  { zone 8m; redis %%REDIS%%; snapshot ''; payload json;
                   message_max 1k; }
END

# one hub on a fake Redis, or a real one
sub one (%is) {
    %is = (zone => '8m', snapshot => 's:', redis => '%%REDIS%%',
           redis_timeout => '500ms 1s', redis_reconnect => '20ms 100ms', %is);
    return (http => "rt_hub app { @{[map { qq($_ $is{$_};) } sort keys %is]} }",
        server => <<'END');
    keepalive_requests 100000;
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location = /status { rt_status json; }
END
}

sub hub ($ngx, $name = 'app') {
    return (grep { $_->{name} eq $name }
        @{decode_json(get($ngx, '/status')->body)->{hubs}})[0];
}

sub live ($ngx) {
    return wait_for { hub($ngx)->{feed}{state} eq 'live' } 5, 'live';
}

sub poll ($ngx, $path, $etag = undef) {
    return get($ngx, $path,
        headers => [defined $etag ? ('If-None-Match' => $etag) : ()]);
}

# asks for a channel and does not wait for the answer
sub touch ($ngx, $channel) {
    my $http = RT::HTTP->new($ngx);
    $http->send(GET => "/rt/$channel");
    return $http;
}

# until a poll says so; its response
sub filled ($ngx, $path, $body) {
    my $r;
    wait_ok { $r = poll($ngx, $path); $r->status == 200 && $r->body eq $body }
        3, "$path: $body";
    return $r;
}

# GETs that Redis has had since the statistics were reset
sub gets ($redis) {
    my ($n) = $redis->cmd(INFO => 'commandstats') =~ /cmdstat_get:calls=(\d+)/;
    return $n // 0;
}

# the connection that is there for snapshots, of one hub
sub plain_conns ($redis) {
    return grep { $_->{sub} == 0 && $_->{psub} == 0 } $redis->clients;
}

sub data ($sse, $seconds = 5) {
    my $e = $sse->event($seconds);
    return !$e ? 'nothing' : $e->{event} eq 'rt.gap'
        ? 'gap ' . decode_json($e->{data})->{reason} : $e->{data};
}

# A fake one that answers GET by its mode: "hold", and all behind it too, or
# what is the value.  RELEASE answers what is held by values in that order, the
# last one for all that are left; CUT ends those
# connections, HELD says how many are.
my @held;
sub script ($conn, @cmd) {
    my ($get, $name) = ($cmd[0] eq 'GET', $cmd[0]);
    if ($name eq 'RELEASE') {
        for (splice @held) {
            my ($c, @was) = @$_;
            $was[0] eq 'GET' ? $c->bulk(@cmd > 2 ? splice @cmd, 1, 1 : $cmd[1])
                : $c->default(@was);
        }
        return $conn->ok;
    }
    if ($name eq 'CUT') {
        $_->[0]->cut for splice @held;
        return $conn->ok;
    }
    return $conn->bulk(scalar grep { $_->[1] eq 'GET' } @held)
        if $name eq 'HELD';
    if (grep { $_->[0] == $conn } @held or $get && $conn->mode eq 'hold') {
        push @held, [$conn, @cmd];
        return;
    }
    return $conn->default(@cmd) if !$get;
    return $conn->err($conn->mode) if $conn->mode =~ /^[A-Z]+ /;
    $conn->bulk($conn->mode eq '' ? undef : $conn->mode);
}
sub fake { return RT::FakeRedis->new(script => \&script) }
sub asked ($fake, $key = '') { return scalar $fake->commands(qr/^GET $key/) }
sub control ($fake, @cmd) { return RT::RESP->new($fake->port)->cmd(@cmd) }
sub held ($fake, $n = 1) {
    return wait_for { control($fake, 'HELD') >= $n } 5, "$n held";
}

subtest 'a cold channel' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => $hubs,
                             server => $server);
    live($ngx);
    $redis->cmd(SET => 's:a', 'one');
    $redis->cmd(SET => 'a', 'wrong');
    $redis->cmd(SET => 'k:a', 'wrong');
    my $r = filled($ngx, '/rt/a', 'one');
    is(poll($ngx, '/rt/a', $r->header('ETag'))->status, 304, 'then 304');
    filled($ngx, '/two/a', 'one');
    is(poll($ngx, '/two/a', $r->header('ETag'))->status, 304,
        'equal content elsewhere is current');

    my $sse = RT::SSE->new($ngx, '/rt/a');
    is(data($sse), 'one', 'a stream begins with it');
    $redis->cmd(SET => 's:b', 'two');
    my $cold = RT::SSE->new($ngx, '/rt/b');
    is(data($cold), 'two', 'one that found it cold gets it');
    $redis->wait_sub('k:a');
    $redis->publish('k:a', 'three');
    is(data($sse), 'three', 'then messages');
    is(data($cold, 0.2), 'nothing', 'each of its own channel');
    is(poll($ngx, '/rt/a')->body, 'three', 'a message is the latest');
    $redis->cmd(SET => 's:e', '');
    $r = filled($ngx, '/rt/e', '');
    is(poll($ngx, '/rt/e', $r->header('ETag'))->status, 304, 'empty is some');

    # nothing
    $redis->cmd(CONFIG => 'RESETSTAT');
    my $none = RT::SSE->new($ngx, '/rt/none');
    wait_ok { gets($redis) } 3, 'asked';
    $r = poll($ngx, '/rt/none');
    is($r->status, 204, 'no key: nothing is known');
    is(poll($ngx, '/rt/none', $r->header('ETag'))->status, 304,
        'which is a version');
    $redis->wait_sub('k:none');
    $redis->publish('k:none', 'first');
    is(data($none), 'first', 'until a message comes');
    is(gets($redis), 1, 'asked once');
    is(hub($ngx)->{messages}{dropped}, 0, 'none of it is dropped');
};

subtest 'after a gap' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => $hubs,
                             server => $server);
    live($ngx);
    $redis->cmd(SET => "s:$_", 'one') for qw(same new gone cold);
    my %sse;
    for my $name (qw(same new gone)) {
        $sse{$name} = RT::SSE->new($ngx, "/rt/$name");
        is(data($sse{$name}), 'one', "$name: filled");
    }
    my $other = filled($ngx, '/two/same', 'one')->header('ETag');
    poll($ngx, '/plain/same');
    $redis->wait_sub('k:same', 3);
    $redis->publish('k:same', 'one');
    is(data($sse{same}), 'one', 'a message');
    filled($ngx, '/plain/same', 'one');
    is(poll($ngx, "/$_/same", $other)->status, 304, "$_: current by content")
        for qw(rt plain);
    my $etag = poll($ngx, '/rt/same')->header('ETag');

    $redis->cmd(SET => 's:new', 'two');
    $redis->cmd(DEL => 's:gone');
    my $before = hub($ngx)->{feed}{reconnects};
    my $plain = hub($ngx, 'plain')->{feed}{reconnects};
    $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
    wait_for { hub($ngx)->{feed}{reconnects} > $before
        && hub($ngx, 'plain')->{feed}{reconnects} > $plain } 5, 'reconnected';
    is(data($sse{$_}), 'gap feed', "$_: a gap") for qw(same new gone);
    is(data($sse{new}), 'two', 'another value follows it');
    is(poll($ngx, '/rt/new')->body, 'two', 'and is the latest');
    is(data($sse{same}, 0.3), 'nothing', 'the same one is not told again');
    wait_ok { poll($ngx, '/rt/same', $other)->status == 304 } 3,
        'the same content: current';
    is(poll($ngx, '/rt/same', $etag)->status, 304, 'also by our own cursor');
    is(poll($ngx, '/plain/same', $other)->status, 200,
        'without snapshot that is in doubt');
    is(data($sse{gone}, 0.1), 'nothing', 'no key: nothing follows');
    my $r = poll($ngx, '/rt/gone');
    is($r->status . $r->body, '200one', 'what is retained stays');
    $redis->wait_sub('k:same', 3);
    $redis->publish('k:same', 'four');
    is(data($sse{same}), 'four', 'and messages');

    # sure no more after the next gap, when there is no key to say so
    $redis->cmd(SET => 's:same', 'four');
    my $four = filled($ngx, '/rt/same', 'four')->header('ETag') =~
        s/"[^.]+/"00000000/r;
    for my $key ('four', undef) {
        $redis->cmd(defined $key ? (SET => 's:same', $key) : (DEL => 's:same'));
        $before = hub($ngx)->{feed}{reconnects};
        $redis->cmd(CONFIG => 'RESETSTAT');
        $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
        wait_for { hub($ngx)->{feed}{reconnects} > $before
                   && gets($redis) >= 4 } 5, 'asked again';
        is(data($sse{same}), 'gap feed', 'another gap');
        my $want = defined $key ? 304 : 200;
        wait_ok { poll($ngx, '/rt/same', $four)->status == $want } 2,
            "by content: $want";
    }
    is(poll($ngx, '/rt/same', $four)->status, 200, 'in doubt');
};

subtest 'a message and the answer' => sub {
    my $fake = fake();
    my $ngx = RT::Nginx->new(redis => $fake, workers => 2,
        one(redis_timeout => '1s 30s'));
    live($ngx);
    $fake->mode('hold');
    my $sse = RT::SSE->new($ngx, '/rt/a');
    held($fake);
    is(asked($fake, 's:a'), 1, 'GET is sent');
    my @order = map { (split)[0] } $fake->commands(qr/^(?:SUBSCRIBE|GET)/);
    is("@order", 'SUBSCRIBE GET', 'after SUBSCRIBE');
    $fake->push('a', 'message');
    is(data($sse), 'message', 'a message comes before the answer');
    control($fake, RELEASE => 'old');
    is(data($sse, 0.3), 'nothing', 'which then counts for nothing');
    is(poll($ngx, '/rt/a')->body, 'message', 'the message is the latest');

    $sse = RT::SSE->new($ngx, '/rt/b');
    held($fake);
    control($fake, RELEASE => 'value');
    is(data($sse), 'value', 'the answer comes first');
    $fake->push('b', 'message');
    is(data($sse), 'message', 'then the message');
    is(poll($ngx, '/rt/b')->body, 'message', 'which is the latest');

    # a message that can't be kept is newer, too
    my $large = RT::SSE->new($ngx, '/rt/large');
    held($fake);
    $fake->push('large', 'x' x 300_000);
    is(data($large), 'gap message too large', 'one that is too large');
    control($fake, RELEASE => 'old');
    is(data($large, 0.3), 'nothing', 'the answer is older');
    is(poll($ngx, '/rt/large')->status, 204, 'nothing is known');

    # evicted and made anew: the answer was for its former life
    my $r = poll($ngx, '/rt/b');
    is($r->status, 200, 'the feed goes on');
    is(hub($ngx)->{feed}{reconnects}, 0, 'as it was');
};

subtest 'forgotten while it was asked for' => sub {
    my $fake = fake();
    my $ngx = RT::Nginx->new(redis => $fake,
        one(inactive => '1s', redis_timeout => '1s 30s'));
    live($ngx);
    $fake->mode('hold');
    my $first = touch($ngx, 'a');
    held($fake);
    wait_for { hub($ngx)->{channels} == 0 } 8, 'forgotten';
    wait_for { $fake->commands(qr/^UNSUBSCRIBE a/) } 5, 'and left';
    my $second = touch($ngx, 'a');
    held($fake, 2);
    my $sse = RT::SSE->new($ngx, '/rt/a');
    control($fake, RELEASE => 'former', 'now');
    is(data($sse), 'now', 'filled by what was asked since');
    is(data($sse, 0.3), 'nothing', 'alone');
};

subtest 'values that are no message' => sub {
    my $redis = RT::Redis->new;
    $redis->cmd(ACL => 'SETUSER', 'noget', 'on', '>x', '+@all', '~*', '&*',
                '-get');
    my $ngx = RT::Nginx->new(redis => $redis,
        vars => { NOGET => "redis://noget:x\@127.0.0.1:" . $redis->port },
        http => $hubs . 'rt_hub noget { zone 8m; redis %%NOGET%%;
                         snapshot s:; prefix k:; }',
        server => $server . 'location ~ ^/noget/(?<channel>.+)$ {
                             rt_subscribe noget $channel; }');
    live($ngx);
    wait_for { hub($ngx, $_)->{feed}{state} eq 'live' } 5, 'live'
        for qw(json noget);
    $redis->cmd(RPUSH => 's:list', 'x');
    $redis->cmd(SET => 's:max', 'x' x 1024);
    $redis->cmd(SET => 's:large', 'x' x 1025);
    $redis->cmd(SET => 's:huge', 'x' x 300_000);
    $redis->cmd(SET => 'bad', '{"data"');
    $redis->cmd(SET => 'good', '{"data":{"a":1},"event":"paid"}');
    $redis->cmd(SET => 'wide', '{"data":"' . 'x' x 1025 . '"}');
    $redis->cmd(SET => 's:a', 'a');

    for my $case (['rt', 'list', qr/Redis says "WRONGTYPE/, 'nothing'],
                  ['rt', 'large', qr/message_max/, 'gap message too large'],
                  ['rt', 'huge', qr/message_max/, 'gap message too large'],
                  ['json', 'bad', qr//, 'nothing'],
                  ['json', 'wide', qr/message_max/, 'gap message too large'],
                  ['noget', 'a', qr/Redis says "NOPERM/, 'nothing']) {
        my ($where, $name, $line, $told) = @$case;
        my $hub = $where eq 'rt' ? 'app' : $where;
        my $before = hub($ngx, $hub)->{messages}{dropped};
        # a line a second
        my $now = int time;
        wait_for { int time > $now } 2, 'another second';
        $ngx->mark;
        my $sse = RT::SSE->new($ngx, "/$where/$name");
        wait_ok { hub($ngx, $hub)->{messages}{dropped} == $before + 1 } 3,
            "$where/$name: dropped and counted";
        wait_ok { scalar $ngx->log(
            qr/\[warn\] .*: snapshot of "$name" dropped: .*$line/) } 2,
            'and told';
        is(data($sse, 0.2), $told, 'to the stream');
        is(poll($ngx, "/$where/$name")->status, 204, 'nothing is known');
        my $channel = $where eq 'json' ? $name : "k:$name";
        $redis->wait_sub($channel);
        $redis->publish($channel, '{"data":"m"}');
        is(data($sse), $where eq 'json' ? 'm' : '{"data":"m"}',
            'the feed goes on');
        is(hub($ngx, $hub)->{feed}{reconnects}, 0, 'as it was');
    }
    filled($ngx, '/rt/max', 'x' x 1024);
    my $sse = RT::SSE->new($ngx, '/json/good');
    my $e = $sse->event;
    is($e && "$e->{event} $e->{data}", 'paid {"a":1}', 'payload json');
    is(poll($ngx, '/json/good')->body, '{"a":1}', 'its data is the body');

    # many of them: counted each, told now and then
    $redis->cmd(RPUSH => "s:l$_", 'x') for 1 .. 200;
    my $before = hub($ngx)->{messages}{dropped};
    $ngx->mark;
    my $start = time;
    my $http = RT::HTTP->new($ngx);
    $http->send(GET => "/rt/l$_") for 1 .. 200;
    $http->read for 1 .. 200;
    wait_ok { hub($ngx)->{messages}{dropped} == $before + 200 } 5, 'all';
    cmp_ok(scalar($ngx->log(qr/WRONGTYPE/)), '<=', time - $start + 2,
        'a line a second');
};

subtest 'patterns' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, one(subscribe => "'p:*'"));
    live($ngx);
    wait_for { $redis->cmd(PUBSUB => 'NUMPAT') == 1 } 5, 'the pattern';
    $redis->cmd(SET => "s:p:$_", 'value') for qw(a b);
    $redis->publish('p:a', 'message');
    wait_for { hub($ngx)->{channels} == 1 } 5, 'made by a message';
    is(poll($ngx, '/rt/p:a')->body, 'message', 'which is all there is to it');
    filled($ngx, '/rt/p:b', 'value');
    is(poll($ngx, '/rt/p:a')->body, 'message', 'nothing to fill');
    is(gets($redis), 1, 'asked for what a client wants alone');
};

subtest '5,000 channels after a reconnect' => sub {
    my $n = 5000;
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        one(zone => '16m'));
    live($ngx);
    # asks for all of them by one connection, in portions
    my $all = sub ($want) {
        my $http = RT::HTTP->new($ngx, timeout => 20);
        my $same = 0;
        for (my $i = 0; $i < $n; $i += 100) {
            $http->send(GET => "/rt/c$_") for $i .. $i + 99;
            for ($i .. $i + 99) {
                my $r = $http->read;
                $same++ if $r->status == 200 && $r->body eq "$want$_";
            }
        }
        return $same;
    };
    my $set = sub ($text) {
        $redis->pipeline(map { [SET => "s:c$_", "$text$_"] } 0 .. $n - 1);
        $redis->cmd(CONFIG => 'RESETSTAT');
    };
    $set->('a');
    my $sse = RT::SSE->new($ngx, '/rt/c4999');
    $all->('a');
    wait_ok { gets($redis) == $n } 10, 'each asked for once';
    wait_ok { $all->('a') == $n } 10, 'all filled';
    is(gets($redis), $n, 'and not again');

    $set->('b');
    my $start = time;
    $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
    wait_ok { gets($redis) >= $n } 10, 'all asked for after a reconnect';
    note sprintf '%d channels in %.2f s', $n, time - $start;
    cmp_ok(time - $start, '<', RT::scale(4), 'in time');
    wait_ok { $all->('b') == $n } 10, 'all filled';
    is(gets($redis), $n, 'each asked for once');
    is(data($sse), 'a4999', 'a stream: before');
    is(data($sse), 'gap feed', 'a gap');
    is(data($sse), 'b4999', 'and after');
};

subtest 'not too many at once' => sub {
    my $fake = fake();
    my $ngx = RT::Nginx->new(redis => $fake, one(redis_timeout => '1s 30s'));
    live($ngx);
    $fake->mode('hold');
    my @http = map { touch($ngx, join ',', map { "c$_" } $_ .. $_ + 29) }
        map { $_ * 30 + 1 } 0 .. 19;
    wait_for { $fake->commands(qr/^SUBSCRIBE c/) == 600 } 5, 'subscribed';
    held($fake, 256);
    stays { control($fake, 'HELD') == 256 } 0.2, '256 in flight';
    $fake->mode('value');
    control($fake, RELEASE => 'value');
    wait_ok { asked($fake) == 600 } 5, 'then the others';
    my %seen;
    $seen{$_}++ for $fake->commands(qr/^GET/);
    is(scalar keys %seen, 600, 'each once');
    filled($ngx, "/rt/c$_", 'value') for 1, 300, 600;
};

subtest 'over a reload' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, one());
    live($ngx);
    $redis->cmd(SET => "s:c$_", 'value') for 1 .. 60;
    poll($ngx, "/rt/c$_") for 1 .. 50;
    poll($ngx, "/rt/none$_") for 1 .. 5;
    filled($ngx, "/rt/c$_", 'value') for 1, 50;
    wait_for { gets($redis) == 55 } 5, 'all asked for';
    my $etag = poll($ngx, '/rt/c7')->header('ETag');
    $redis->cmd(CONFIG => 'RESETSTAT');
    my $old = hub($ngx)->{feed}{worker};
    $ngx->reload;
    wait_for { hub($ngx)->{feed}{worker} != $old } 5, 'another feeder';
    wait_ok { scalar $ngx->log(qr/without a gap/) } 5, 'without a gap';
    wait_for { plain_conns($redis) >= 1 } 5, 'connected for snapshots';
    is(poll($ngx, '/rt/c7', $etag)->status, 304, 'nothing changed');
    filled($ngx, '/rt/c55', 'value');
    is(gets($redis), 1, 'what is new is asked for, and nothing else');

    # other keys: asked for anew
    $redis->cmd(SET => 't:c7', 'other');
    $ngx->reload(one(snapshot => 't:'));
    filled($ngx, '/rt/c7', 'other');
};

subtest 'owed while a reload hands over' => sub {
    my $fake = fake();
    my $ngx = RT::Nginx->new(redis => $fake, workers => 2,
        one(redis_timeout => '500ms 5s'));
    live($ngx);
    $fake->mode('hold');
    my $sse = RT::SSE->new($ngx, '/rt/a');
    held($fake);
    my $old = hub($ngx)->{feed}{worker};
    $fake->mode('value');
    $ngx->reload;
    wait_for { hub($ngx)->{feed}{worker} != $old } 5, 'another feeder';
    wait_ok { scalar $ngx->log(qr/without a gap/) } 5, 'without a gap';
    filled($ngx, '/rt/a', 'value');
    is(asked($fake, 's:a'), 2, 'asked again');
};

subtest 'the connection for snapshots alone' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, one());
    live($ngx);
    $redis->cmd(SET => "s:$_", 'value') for 'a' .. 'd';
    filled($ngx, '/rt/a', 'value');
    is(scalar(my @plain = plain_conns($redis)), 1, 'one connection');
    my $sse = RT::SSE->new($ngx, '/rt/a');
    is(data($sse), 'value', 'a stream');
    for my $name ('b' .. 'd') {
        my ($conn) = plain_conns($redis);
        $redis->cmd(CLIENT => KILL => ID => $conn->{id});
        filled($ngx, "/rt/$name", 'value');
        wait_ok { my @c = plain_conns($redis);
            @c == 1 && $c[0]{id} != $conn->{id} } 5, 'one again';
    }
    is(hub($ngx)->{feed}{reconnects}, 0, 'the feed was never away');
    $redis->wait_sub('a');
    $redis->publish('a', 'message');
    is(data($sse), 'message', 'and goes on');
    is($ngx->log(qr/no snapshots from Redis/), 3, 'told each time');
    is($ngx->log(qr/snapshots again from Redis/), 3, 'and back');

    # cut with GETs under way, silent, refused: asked again until answered
    my $fake = fake();
    my $other = RT::Nginx->new(redis => $fake, workers => 2, one());
    live($other);
    $fake->mode('hold');
    my @http = map { touch($other, $_) } 'a' .. 'e';
    held($fake, 5);
    control($fake, 'CUT');
    held($fake, 5);
    my $asked = asked($fake);
    cmp_ok($asked, '>=', 10, 'cut: asked again');
    wait_ok { asked($fake) >= $asked + 5 } 5, 'silent: asked again';
    $fake->mode('LOADING Redis is loading the dataset in memory');
    control($fake, 'CUT');
    wait_ok { $other->log(qr/no snapshots from Redis/) } 5, 'told';
    is(poll($other, '/rt/a')->status, 204, 'nothing is known');
    $fake->push('b', 'message');
    is(poll($other, '/rt/b')->body, 'message', 'a message settles one');
    $asked = asked($fake, 's:a');
    wait_ok { asked($fake, 's:a') > $asked + 1 } 5, 'refused: asked again';
    is($other->log(qr/no snapshots from Redis/), 1,
        'told for a change alone');
    $fake->mode('value');
    filled($other, "/rt/$_", 'value') for qw(a c d e);
    is(poll($other, '/rt/b')->body, 'message', 'b has its message');
    is(hub($other)->{feed}{reconnects}, 0, 'the feed was never away');
};

done_testing;
