# Polls that wait: `Prefer: wait=N` until a change, and a cold channel until
# its snapshot is there.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;

my $locations = <<'END';
    location ~ ^/rt/(?<channel>.+)$  { rt_subscribe app $channel; }
    location ~ ^/cap/(?<channel>.+)$ { rt_subscribe app $channel; rt_wait 1s; }
    location ~ ^/off/(?<channel>.+)$ { rt_subscribe app $channel; rt_wait 0; }
    location ~ ^/few/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_max_subscribers 1;
        rt_advise viewers=15;
    }
    location = /publish { rt_publish app $arg_channel; }
    location = /status { rt_status json; }
END

# a request that is under way
sub begin ($ngx, $path, %opt) {
    my @headers = @{$opt{headers} // []};
    push @headers, Prefer => "wait=$opt{wait}" if defined $opt{wait};
    push @headers, 'If-None-Match' => $opt{etag} if defined $opt{etag};
    my $c = RT::HTTP->new($ngx);
    my $at = time;
    $c->send($opt{method} // 'GET', $path, headers => \@headers);
    return { c => $c, at => $at };
}

# its response and what it took
sub answer ($poll, $seconds = 5) {
    my $r = $poll->{c}->read(timeout => $seconds);
    return ($r, time - $poll->{at});
}

sub poll ($ngx, $path, %opt) { return answer(begin($ngx, $path, %opt)) }

sub open_polls ($n, $ngx, $path, %opt) {
    return map { begin($ngx, $path, %opt) } 1 .. $n;
}

# nothing is answered yet
sub waits ($poll, $text, $seconds = 0.15) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $bits = '';
    vec($bits, fileno $poll->{c}{sock}, 1) = 1;
    is(select($bits, undef, undef, $seconds), 0, $text);
}

sub took ($seconds, $least, $text) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok($seconds >= $least - 0.05 && $seconds < RT::scale($least + 0.7),
        "$text (" . sprintf('%.2f s)', $seconds));
}

sub publish ($ngx, $channel, $text) {
    return post($ngx, "/publish?channel=$channel", $text)->status;
}

sub applied ($r) { return $r->header('Preference-Applied') // 'none' }

sub hub ($ngx) { return decode_json(get($ngx, '/status')->body)->{hubs}[0] }

sub etag ($ngx, $path) { return get($ngx, $path)->header('ETag') }

sub logged ($ngx, $like) {
    return scalar grep { /$like/ } split /\n/,
        slurp($ngx->dir . '/logs/access.log');
}

subtest 'what waits, and for how long' => sub {
    my $ngx = RT::Nginx->new(workers => 2, http => 'rt_hub app { zone 8m; }',
                             server => $locations);
    my ($r, $s) = poll($ngx, '/rt/a');
    is($r->status . applied($r), '204none', 'without Prefer: 204');
    took($s, 0, 'at once');
    ($r, $s) = poll($ngx, '/rt/a', wait => 1);
    is($r->status . ' ' . applied($r), '204 wait=1', 'nothing comes: 204');
    took($s, 1, 'after a second');
    ok($r->header('ETag') && $r->header('RT-Advice'), 'with all headers');

    my $p = begin($ngx, '/rt/a', wait => 20);
    waits($p, 'nothing known: held');
    is(publish($ngx, 'a', 'one'), 202, 'a message');
    ($r, $s) = answer($p);
    is($r->status . ' ' . $r->body . ' ' . applied($r), '200 one wait=20',
        'is the answer');
    took($s, 0.15, 'at once');
    my $etag = $r->header('ETag');
    ($r, $s) = poll($ngx, '/rt/a', wait => 20);
    is($r->status . applied($r), '200wait=20', 'known, no cursor: 200');
    took($s, 0, 'at once');
    ($r, $s) = poll($ngx, '/rt/a', wait => 20, etag => '"other"');
    is($r->status, 200, 'another cursor: 200');
    took($s, 0, 'at once');

    ($r, $s) = poll($ngx, '/rt/a', etag => $etag);
    is($r->status . applied($r), '304none', 'without Prefer: 304');
    ($r, $s) = poll($ngx, '/rt/a', wait => 1, etag => $etag);
    is($r->status . ' ' . applied($r), '304 wait=1', 'no change: 304');
    took($s, 1, 'after a second');
    is($r->header('ETag'), $etag, 'with the ETag');

    $p = begin($ngx, '/rt/a', wait => 20, etag => $etag);
    my $h = begin($ngx, '/rt/a', wait => 20, etag => $etag, method => 'HEAD');
    waits($p, 'no change: held');
    publish($ngx, 'b', 'elsewhere');
    publish($ngx, 'a', 'one');
    waits($p, 'the same content is none');
    publish($ngx, 'a', 'two');
    is((answer($p))[0]->body, 'two', 'a change is the answer');
    is((answer($h))[0]->header('Content-Length'), 3, 'to HEAD, too');

    get($ngx, '/rt/c');     # makes it, which is a version of its own
    $etag = etag($ngx, '/rt/a,b,c');
    $p = begin($ngx, '/rt/a,b,c', wait => 20, etag => $etag);
    waits($p, 'three channels: held');
    publish($ngx, 'c', 'three');
    is(join(' ', map { $_->{data} } @{decode_json((answer($p))[0]->body)}),
        'elsewhere two three', 'until one changes');

    ($r, $s) = poll($ngx, '/cap/none', wait => 100);
    is($r->status . ' ' . applied($r), '204 wait=1', 'rt_wait is the cap');
    took($s, 1, 'and counts');
    ($r, $s) = poll($ngx, '/off/none', wait => 5);
    is($r->status . applied($r), '204none', 'rt_wait 0: not at all');
    took($s, 0, 'answered at once');
    is(hub($ngx)->{polls}{hit}, 2, 'each is counted once');
};

subtest 'the header' => sub {
    my $ngx = RT::Nginx->new(http => 'rt_hub app { zone 8m; } rt_wait 30s;',
                             server => $locations);
    publish($ngx, 'a', 'one');
    my $one = sub (@values) {
        return applied(get($ngx, '/rt/a', timeout => 2,
            headers => [map { (Prefer => $_) } @values]));
    };
    for (['wait=7', 7], ['wait = 7', 7], ["WAIT\t=\t7", 7], ['Wait="7"', 7],
         ['respond-async, wait=7', 7], ['wait=7, respond-async', 7],
         ['wait=7;a=b', 7], ['wait=7 ; a="b,c"', 7], [',,wait=7', 7],
         ['x="a, wait=9", wait=7', 7], ['x="a\\", wait=9", wait=7', 7],
         ['wait=7, wait=9', 7], ['wait=007', 7], ['wait=30', 30],
         ['wait=31', 30], ['wait=' . '9' x 40, 30],
         ['x;wait=9, wait=7', 7],
         map { [$_, undef] } 'wait', 'wait=', 'wait=0', 'wait=-1', 'wait=1x',
             'wait=x', 'wait=1.5', 'waiting=5', 'awaits=5', 'wait5',
             'wait="5', 'wait=""', 'x;wait=5', 'x="wait=5"', '', ',', '"',
             'wait=x, wait=5', 'wait, wait=5', '"\\') {
        my ($text, $seconds) = @$_;
        is($one->($text), $seconds ? "wait=$seconds" : 'none',
            "Prefer: $text");
    }
    is($one->('respond-async', 'wait=7'), 'wait=7', 'two lines');
    is($one->('wait=8', 'wait=7'), 'wait=8', 'the first of two');
};

subtest 'clients that leave, connections that go on' => sub {
    my $ngx = RT::Nginx->new(http => 'rt_hub app { zone 8m; }',
                             server => $locations);
    begin($ngx, '/rt/fin', wait => 20)->{c}->close;
    begin($ngx, '/rt/rst', wait => 20)->{c}->reset;
    my $p = begin($ngx, '/rt/later', wait => 20);
    waits($p, 'held');
    $p->{c}->close;
    for my $name (qw(fin rst later)) {
        wait_ok { logged($ngx, qr{/rt/$name HTTP/1.1" 499}) } 2,
            "$name: the end is noticed";
    }
    publish($ngx, $_, 'x') for qw(fin rst later);

    # the client's end in one packet with its request
    my $c = RT::HTTP->new($ngx);
    $c->send(GET => '/rt/both', headers => [Prefer => 'wait=20']);
    shutdown $c->{sock}, 1;
    wait_ok { logged($ngx, qr{/rt/both HTTP/1.1" 499}) } 2,
        'request and end at once';

    # pipelined: answered in order
    $c = RT::HTTP->new($ngx);
    $c->send(GET => '/rt/a', headers => [Prefer => 'wait=20']);
    $c->send(GET => '/rt/fin');
    $c->send(GET => '/rt/b', headers => [Prefer => 'wait=20']);
    waits({ c => $c }, 'pipelined: held');
    publish($ngx, 'a', 'one');
    is($c->read->body, 'one', 'the first');
    is($c->read->body, 'x', 'the next');
    waits({ c => $c }, 'the last is held');
    publish($ngx, 'b', 'two');
    is($c->read->body, 'two', 'then answered');
    $c->send(GET => '/rt/b');
    is($c->read->body, 'two', 'the connection goes on');

    # a body that is still to come
    $c = RT::HTTP->new($ngx);
    $c->write("GET /rt/none HTTP/1.1\r\nHost: a\r\nPrefer: wait=20\r\n"
              . "Content-Length: 10\r\n\r\n12345");
    is($c->read->status, 204, 'with a body under way: not held');

    # no streams
    my @held = open_polls(20, $ngx, '/few/v', wait => 20);
    waits($held[-1], '20 polls wait');
    is(hub($ngx)->{streams}{sse}{open}, 0, 'no open streams');
    my $r = get($ngx, '/few/v');
    is($r->header('RT-Advice'), 'sse', 'but they are viewers');
    my $sse = RT::SSE->new($ngx, '/few/v');
    is($sse->status, 200, 'nor are they among those that are limited');
    publish($ngx, 'v', 'x');
    is(scalar(grep { (answer($_))[0]->body eq 'x' } @held), 20, 'all answered');
    is($sse->event->{data}, 'x', 'and the stream');
    is(hub($ngx)->{streams}{sse}{opened}, 1, 'one stream was opened');
    $sse->close;
};

subtest 'parts of other answers do not wait' => sub {
    my $ngx = RT::Nginx->new(http => 'rt_hub app { zone 8m; }',
        server => $locations . <<'END');
        location = /page.html { ssi on; }
        location = /gone { error_page 404 /rt/gone; return 404; }
END
    RT::spew($ngx->dir . '/html/page.html',
        '[<!--#include virtual="/rt/none" -->]');
    my $start = time;
    is(get($ngx, '/page.html', headers => [Prefer => 'wait=20'])->body, '[]',
        'a subrequest');
    is(get($ngx, '/gone', headers => [Prefer => 'wait=20'])->status, 404,
        'the page of an error');
    cmp_ok(time - $start, '<', RT::scale(1), 'at once');
};

subtest 'many, for long' => sub {
    my $ngx = RT::Nginx->new(workers => 2, http => 'rt_hub app { zone 8m; }',
                             server => $locations);
    my @held = open_polls(400, $ngx, '/rt/many', wait => 20);
    waits($held[-1], '400 wait');
    publish($ngx, 'many', 'x');
    is(scalar(grep { (answer($_))[0]->body eq 'x' } @held), 400,
        'one message answers all');
    $_->{c}->close for splice @held;

    # woken again and again, by the same content
    publish($ngx, 'same', 'x');
    my $etag = etag($ngx, '/rt/same');
    @held = open_polls(50, $ngx, '/rt/same', wait => 30, etag => $etag);
    my $c = RT::HTTP->new($ngx);
    my $send = sub ($n) {
        for (1 .. $n) {
            $c->send(POST => '/publish?channel=same', body => 'x');
            $c->read->status == 202 or die "not taken\n";
        }
    };
    $send->(100);
    my @before = map { $ngx->rss($_) } $ngx->workers;
    $send->(800);
    my @after = map { $ngx->rss($_) } $ngx->workers;
    waits($held[0], 'still held');
    my ($most) = sort { $b <=> $a } map { $after[$_] - $before[$_] } 0, 1;
    # 40,000 times a poll was run again
    cmp_ok($most, '<', asan() ? 40_000 : 400, "memory: $most KB more");
    publish($ngx, 'same', 'y');
    is(scalar(grep { (answer($_))[0]->body eq 'y' } @held), 50, 'then 200');
};

subtest 'a channel that is evicted' => sub {
    my $ngx = RT::Nginx->new(workers => 2, server => $locations,
        http => 'keepalive_requests 100000; rt_hub app { zone 1m; }',
        allow => [qr/message_max/]);
    my @held = open_polls(5, $ngx, '/rt/quiet', wait => 30);
    waits($held[0], 'held');
    my $c = RT::HTTP->new($ngx);
    my $n = 0;
    wait_for {
        for (1 .. 200) {
            $c->send(POST => '/publish?channel=c' . ++$n, body => 'x' x 500);
            $c->read;
        }
        my $bits = '';
        vec($bits, fileno $held[0]{c}{sock}, 1) = 1;
        select $bits, undef, undef, 0;
    } 25, 'memory is full';
    cmp_ok(hub($ngx)->{evicted}, '>', 0, 'channels are evicted');
    is(scalar(grep { (answer($_))[0]->status == 204 } @held), 5,
        'the wait ends, nothing is known');
};

subtest 'a worker that quits' => sub {
    my $ngx = RT::Nginx->new(workers => 1,
        http => 'rt_hub app { zone 8m; } rt_drain 10s;', server => $locations);
    publish($ngx, 'a', 'one');
    my $known = begin($ngx, '/rt/a', wait => 25, etag => etag($ngx, '/rt/a'));
    my $none = begin($ngx, '/rt/none', wait => 25);
    waits($none, 'held');
    $ngx->reload;
    my ($r) = answer($known);
    is($r->status, 304, 'current: 304');
    is($r->header('Connection'), 'close', 'and the end');
    is((answer($none))[0]->status, 204, 'unknown: 204');
    wait_ok { !$ngx->old_workers } 3, 'which holds up nobody';
};

subtest 'HTTP/2' => sub {
    my $ngx = RT::Nginx->new(http => "rt_hub app { zone 8m; }
        server { listen 127.0.0.1:%%PORT1%% http2;\n$locations }",
        server => $locations);
    my $url = 'http://127.0.0.1:' . $ngx->port(1) . '/rt/a';
    my @curl = (qw(curl -sS --http2-prior-knowledge -D - -H), 'Prefer: wait=20',
                '--max-time', 10);
    my $out = dir() . '/h2';
    my $pid = RT::spawn([@curl, '-o', "$out.body", $url], out => $out);
    wait_for { hub($ngx)->{channels} == 1 } 5, 'asked';
    stays { RT::running($pid) } 0.2, 'held';
    publish($ngx, 'a', 'one');
    wait_ok { !RT::running($pid) } 3, 'answered';
    like(slurp($out), qr{^HTTP/2 200.*^preference-applied: wait=20}msi,
        'by 200');
    is(slurp("$out.body"), 'one', 'and the message');
    my ($exit) = curl(qw(--http2-prior-knowledge --max-time 1 -H),
        'Prefer: wait=20', $url =~ s/a$/b/r);
    is($exit, 28, 'a client that gives up');
    wait_ok { logged($ngx, qr{/rt/b HTTP/2.0" 499}) } 2, 'is noticed';
} if `curl --version` =~ /HTTP2/;

subtest 'Redis away meanwhile' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, server => $locations,
        http => 'rt_hub app { zone 8m; redis %%REDIS%%;
                              redis_reconnect 20ms 100ms; }');
    wait_for { hub($ngx)->{feed}{state} eq 'live' } 5, 'live';
    get($ngx, "/rt/$_") for qw(a none);
    $redis->wait_sub($_) for qw(a none);
    $redis->publish('a', 'one');
    wait_for { get($ngx, '/rt/a')->status == 200 } 2, 'known';
    my $etag = etag($ngx, '/rt/a');
    my $a = begin($ngx, '/rt/a', wait => 2, etag => $etag);
    my $none = begin($ngx, '/rt/none', wait => 2);
    waits($a, 'held');
    $redis->kill9;
    wait_for { hub($ngx)->{feed}{state} ne 'live' } 3, 'lost';
    waits($a, 'and held on');
    my ($r, $s) = answer($a);
    is(join(' ', $r->status, $r->body, $r->header('ETag') // 'no ETag'),
        '200 one no ETag', 'the end: what is retained');
    took($s, 2, 'at the end');
    ($r, $s) = answer($none);
    is($r->status, 503, 'nothing is retained: 503');
    took($s, 2, 'at the end');
    ($r, $s) = poll($ngx, '/rt/none', wait => 2);
    is($r->status, 503, 'away from the beginning');
    took($s, 0, 'at once');

    $redis->start;
    wait_for { hub($ngx)->{feed}{state} eq 'live' } 5, 'live';
    $redis->wait_sub('a');
    $a = begin($ngx, '/rt/a', wait => 20, etag => etag($ngx, '/rt/a'));
    waits($a, 'held');
    $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
    ($r) = answer($a);
    is($r->status . $r->body, '200one', 'back again: in doubt, 200');
};

# snapshots

my @held;
sub script ($conn, @cmd) {
    if ($cmd[0] eq 'RELEASE') {
        for (splice @held) {
            my ($c, @was) = @$_;
            $was[0] eq 'GET' ? $c->bulk($cmd[1]) : $c->default(@was);
        }
        return $conn->ok;
    }
    if (grep { $_->[0] == $conn } @held
        or $cmd[0] eq 'GET' && $conn->mode eq 'hold')
    {
        push @held, [$conn, @cmd];
        return;
    }
    $conn->default(@cmd);
}

subtest 'a cold channel that is about to be filled' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, server => $locations,
        http => 'rt_hub app { zone 8m; redis %%REDIS%%; snapshot s:;
                              redis_reconnect 20ms 100ms; }');
    wait_for { hub($ngx)->{feed}{state} eq 'live' } 5, 'live';
    $redis->cmd(SET => "s:c$_", $_) for 1 .. 100;
    my ($same, $most) = (0, 0);
    for (1 .. 100) {
        my ($r, $s) = poll($ngx, "/rt/c$_");
        $r->status == 200 && $r->body eq $_ ? $same++
            : diag("c$_: " . $r->status . sprintf ' in %.3f s', $s);
        $most = $s if $s > $most;
    }
    is($same, 100, 'the first poll of each is 200');
    cmp_ok($most, '<', RT::scale(0.5), sprintf 'in %.3f s', $most);
    $most = 0;
    for (1 .. 20) {
        my ($r, $s) = poll($ngx, "/rt/none$_");
        $same++ if $r->status == 204;
        $most = $s if $s > $most;
    }
    is($same, 120, 'no key: 204');
    cmp_ok($most, '<', RT::scale(0.09), sprintf 'in %.3f s', $most);
    my ($r) = poll($ngx, '/rt/c1,c2,new1');
    is(join(' ', map { $_->{data} } @{decode_json($r->body)}), '1 2', 'several');
    $redis->cmd(SET => "s:new$_", "n$_") for 2, 3;
    ($r) = poll($ngx, '/rt/c1,new2,new3');
    is(join(' ', sort map { $_->{data} } @{decode_json($r->body)}), '1 n2 n3',
        'all of them');

    # a long poll over a reconnect: held while the content is the same
    my $etag = etag($ngx, '/rt/c1');
    my @c = open_polls(10, $ngx, '/rt/c1', wait => 20, etag => $etag);
    my $c2 = begin($ngx, '/rt/c2', wait => 20, etag => etag($ngx, '/rt/c2'));
    my $none = begin($ngx, '/rt/none1', wait => 20);
    waits($none, 'held');
    $redis->cmd(SET => 's:c2', 'two');
    for (1 .. 3) {
        my $before = hub($ngx)->{feed}{reconnects};
        $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
        wait_for { hub($ngx)->{feed}{reconnects} > $before } 5, 'again';
        $redis->wait_sub('c1');
        is((answer($c2))[0]->body, 'two', 'another value: 200 with it')
            if $_ == 1;
        waits($_, 'the same: held on') for $c[0], $none;
    }
    $redis->cmd(SET => 's:c1', 'one');
    $redis->cmd(SET => 's:none1', 'some');
    $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
    is(scalar(grep { (answer($_))[0]->body eq 'one' } @c), 10, 'then 200');
    is((answer($none))[0]->body, 'some', 'also where nothing was known');
};

subtest 'an answer that does not come' => sub {
    my $fake = RT::FakeRedis->new(script => \&script);
    my $release = sub ($value) {
        RT::RESP->new($fake->port)->cmd(RELEASE => $value);
    };
    my $ngx = RT::Nginx->new(redis => $fake, workers => 2, server => $locations
        . 'location ~ ^/short/(?<channel>.+)$ { rt_subscribe short $channel; }',
        http => 'rt_hub app { zone 8m; redis %%REDIS%%; snapshot s:;
                              redis_timeout 1s 30s; }
                 rt_hub short { zone 8m; redis %%REDIS%%; snapshot s:;
                                redis_timeout 200ms 300ms; }');
    wait_for { my @hubs = @{decode_json(get($ngx, '/status')->body)->{hubs}};
        2 == grep { $_->{feed}{state} eq 'live' } @hubs } 5, 'live';
    $fake->mode('hold');
    my ($r, $s) = poll($ngx, '/rt/a');
    is($r->status, 204, 'what is known: nothing');
    took($s, 1, 'after a second');
    $release->('one');
    wait_ok { get($ngx, '/rt/a')->body eq 'one' } 2, 'filled later';
    ($r, $s) = poll($ngx, '/short/a');
    is($r->status, 204, 'redis_timeout is less');
    took($s, 0.3, 'and counts');

    my $p = begin($ngx, '/rt/b');
    waits($p, 'held');
    $release->('two');
    ($r, $s) = answer($p);
    is($r->status . $r->body, '200two', 'answered by the answer');
    $p = begin($ngx, '/rt/c');
    waits($p, 'held');
    $fake->push('c', 'message');
    ($r, $s) = answer($p);
    is($r->status . $r->body, '200message', 'or by a message');
    took($s, 0.15, 'at once');
    $p = begin($ngx, '/rt/d');
    waits($p, 'held');
    $p->{c}->close;
    wait_ok { logged($ngx, qr{/rt/d HTTP/1.1" 499}) } 2, 'or left';
    my ($q) = begin($ngx, '/rt/e', wait => 2);
    waits($q, 'held for longer', 1.3);
    $release->('three');
    is((answer($q))[0]->body, 'three', 'until it comes');
};

done_testing;
