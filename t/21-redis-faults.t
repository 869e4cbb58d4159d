# What Redis may do to us: be away, be killed, be silent, talk nonsense, say
# no.  Streams stay open, no worker ends, the log has one line for a change.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use RT;

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$  { rt_subscribe app $channel; rt_heartbeat 1s; }
    location /publish { rt_publish app $arg_channel; }
    location /status { rt_status json; }
END

sub feed ($ngx) { return decode_json(get($ngx, '/status')->body)->{hubs}[0]{feed} }
sub feed_state ($ngx) { return feed($ngx)->{state} }

# lines about the state of a feed
sub lines ($ngx) { return $ngx->log(qr/rt_hub ".*": (?:live|lost|no feed)/) }

sub errors ($ngx) { return $ngx->log(qr/\[(?:error|crit|warn)\]/) }

# after whatever happened: messages come, the stream was open all the time
sub recovered ($ngx, $publish, $sse, $text) {
    wait_ok { feed_state($ngx) eq 'live' } 8, "$text: live again";
    wait_ok { $publish->('a', $text) > 0 } 3, "$text: subscribed again";
    my $e;
    do { $e = $sse->event } while $e && $e->{event} eq 'rt.gap';
    ok($e && $e->{data} eq $text, "$text: the same stream goes on");
}

subtest 'a real one: absent, killed, restarted, silent, its clients killed' =>
sub {
    my $redis = RT::Redis->new(start => 0);
    my $ngx = RT::Nginx->new(redis => $redis, workers => 3, http => <<'END',
        rt_hub app { redis %%REDIS%%; redis_timeout 500ms 700ms;
                     redis_reconnect 50ms 400ms; }
END
        server => $server);
    my @workers = $ngx->workers;
    my $sse = RT::SSE->new($ngx, '/rt/a');
    my $publish = sub ($channel, $text) { $redis->publish($channel, $text) };

    wait_ok { feed_state($ngx) eq 'down' } 3, 'absent: down';
    is(get($ngx, '/rt/a')->status, 503, 'absent: a poll is told');
    my $r = post($ngx, '/publish?channel=a', 'x');
    is($r->status, 503, 'absent: nothing can be published');
    cmp_ok($r->elapsed, '<', 0.5, 'at once');
    stays { lines($ngx) == 1 } 1, 'one line, however often it is tried';

    $redis->start;
    recovered($ngx, $publish, $sse, 'started');
    is(scalar(lines($ngx)), 2, 'one line more');
    is(post($ngx, '/publish?channel=a', 'by http')->status, 202, 'publish');
    $sse->expect('by http');

    $redis->kill9;
    wait_ok { feed_state($ngx) eq 'down' } 3, 'killed: down';
    ok($sse->wait_comment, 'killed: heartbeats go on');
    stays { lines($ngx) == 3 } 0.7, 'killed: one line';
    like((lines($ngx))[-1], qr/\[error\].*lost Redis 127.0.0.1:\d+: /,
        'which says so');
    $redis->start;
    my $start = time;
    recovered($ngx, $publish, $sse, 'restarted');
    is(scalar(lines($ngx)), 4, 'one line more');

    $redis->pause;
    wait_ok { feed_state($ngx) ne 'live' } 3, 'silent: noticed';
    like((lines($ngx))[-1], qr/no answer in time/, 'and said');
    $r = post($ngx, '/publish?channel=a', 'x');
    is($r->status, 503, 'silent: not published');
    cmp_ok($r->elapsed, '<', 2, 'in time');
    $redis->resume;
    recovered($ngx, $publish, $sse, 'resumed');
    is(scalar(lines($ngx)), 6, 'two lines more');

    for my $n (1 .. 3) {
        my $before = feed($ngx)->{reconnects};
        $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
        wait_for { feed($ngx)->{reconnects} == $before + 1 } 3, 'noticed';
        recovered($ngx, $publish, $sse, "connection killed $n");
    }
    is(scalar(lines($ngx)), 12, 'two lines each');
    is_deeply([$ngx->workers], \@workers, 'the same workers');
    is(scalar(grep { $_->{sub} } $redis->clients), 1, 'one connection');
};

subtest 'a fake one: garbage, cut replies, wrong shapes' => sub {
    my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
        my ($when, $bytes) = split / /, $conn->mode, 2;
        return $conn->default(@cmd) if !defined $bytes || $cmd[0] ne $when;
        return if $bytes eq 'nothing';
        return $conn->close if $bytes eq 'close';
        return $conn->cut($bytes =~ s/^cut //r) if $bytes =~ /^cut/;
        $conn->raw($bytes);
    });
    my $ngx = RT::Nginx->new(redis => $fake, workers => 2, http => <<'END',
        rt_hub app { redis %%REDIS%%; redis_timeout 500ms 500ms;
                     redis_reconnect 20ms 100ms; }
END
        server => $server);
    my @workers = $ngx->workers;
    my $sse = RT::SSE->new($ngx, '/rt/a');
    my $publish = sub ($channel, $text) { $fake->push($channel, $text) };
    recovered($ngx, $publish, $sse, 'at start');

    my $n = 0;
    for my $mode (
        # at login
        "PING HTTP/1.1 400 Bad Request\r\n\r\n", "PING close",
        "PING nothing", "PING cut +PO", "PING +OK\r\n", "PING :1\r\n",
        "PING *-1\r\n", "PING -ERR max number of clients reached\r\n",
        # later
        "SUBSCRIBE garbage", "SUBSCRIBE +OK\r\n", "SUBSCRIBE *0\r\n",
        "SUBSCRIBE *3\r\n\$9\r\nsubscri", "SUBSCRIBE close",
        "SUBSCRIBE cut *3\r\n", "SUBSCRIBE *2000000000\r\n",
        "SUBSCRIBE -ERR unknown command 'SUBSCRIBE', with args\r\n",
        "SUBSCRIBE *1\r\n\$7\r\nmessage\r\n",
        "SUBSCRIBE *3\r\n\$7\r\nmessage\r\n:1\r\n*1\r\n+a\r\n",
        "SUBSCRIBE *3\r\n\$-1\r\n\$-1\r\n\$-1\r\n",
        "SUBSCRIBE " . "*8\r\n" x 12,
        "SUBSCRIBE +" . 'x' x 2_000_000,
    ) {
        my $name = substr($mode, 0, 40) =~ s/[\r\n]+/ /gr;
        my $before = scalar(lines($ngx));
        $ngx->mark if !$n;
        $fake->mode($mode);
        $fake->drop;
        wait_for { $fake->connections == 0 } 2, 'dropped' if $mode =~ /close/;
        # as often as not it is tried more than once
        wait_for { scalar(() = $fake->commands(qr/^PING/)) > $n } 5, 'tried';
        select undef, undef, undef, 0.15;
        $fake->mode('');
        $fake->drop;
        recovered($ngx, $publish, $sse, $name);
        $n = () = $fake->commands(qr/^PING/);
    }

    # what nobody asked for, in the middle of everything
    for my $bytes (":1\r\n", "+OK\r\n", "nonsense\r\n", "\0\0\0", "*-1\r\n",
        "-NOAUTH Authentication required.\r\n", "%1\r\n", "*3\r\n\$7\r\n")
    {
        my $before = feed($ngx)->{reconnects};
        $fake->raw($bytes);
        wait_ok { feed($ngx)->{reconnects} > $before } 5,
            'noticed: ' . $bytes =~ s/[^ -~]+/ /gr;
        recovered($ngx, $publish, $sse, 'after ' . $bytes =~ s/[^ -~]+/ /gr);
    }

    # a message in the smallest pieces
    for my $byte (split //, "*3\r\n\$7\r\nmessage\r\n\$1\r\na\r\n\$2\r\nhi\r\n") {
        $fake->raw($byte);
    }
    $sse->expect('hi');
    is_deeply([$ngx->workers], \@workers, 'the same workers');
};

subtest 'one that accepts and says nothing is away, too' => sub {
    my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {});
    my $ngx = RT::Nginx->new(redis => $fake, http => <<'END', server => $server);
        rt_hub app { redis %%REDIS%%; redis_timeout 300ms 30s; }
END
    wait_ok { feed_state($ngx) eq 'down' } 3, 'down';
    $ngx->wait_log(qr/no feed from .*: no answer in time/);
    my $r = post($ngx, '/publish?channel=a', 'x');
    is($r->status, 503, 'nothing can be published');
    cmp_ok($r->elapsed, '<', 0.5, 'at once');
};

subtest 'Redis says no' => sub {
    my $redis = RT::Redis->new(args => [requirepass => 'right'],
                               password => 'right');
    my $url = 'redis://%s127.0.0.1:' . $redis->port;
    my $ngx = RT::Nginx->new(vars => { NONE => sprintf($url, ''),
            WRONG => sprintf($url, ':wr0ng@'), DB => sprintf($url, ':right@')
            . '/99' }, workers => 2, http => <<'END', server => $server);
        rt_hub app  { redis %%NONE%%; redis_reconnect 20ms 100ms; }
        rt_hub bad  { redis %%WRONG%%; redis_reconnect 20ms 100ms; }
        rt_hub db   { redis %%DB%%; redis_reconnect 20ms 100ms; }
END
    $ngx->wait_log(qr/"app": no feed from .*Redis says "NOAUTH /);
    $ngx->wait_log(qr/"bad": no feed from .*Redis says "WRONGPASS /);
    $ngx->wait_log(qr/"db": no feed from .*Redis says "ERR .*DB/);
    stays { lines($ngx) == 3 } 1, 'one line each';
    is(feed_state($ngx), 'down', 'down');
    unlike($ngx->log, qr/wr0ng|right/, 'no password in the log');
    $redis->cmd(CONFIG => SET => requirepass => '');
    wait_ok { feed_state($ngx) eq 'live' } 3, 'allowed: live';

    # an ACL that denies one channel, then the command
    $ngx->stop;
    $redis->cmd(CONFIG => SET => requirepass => 'right');
    $redis->cmd(ACL => 'SETUSER', 'u', 'on', '>pw', '+@all', '~*',
                'resetchannels', '&open:*', '&all:*');
    $ngx = RT::Nginx->new(vars => { U => sprintf($url, 'u:pw@') },
        http => <<'END', server => $server);
        rt_hub app { redis %%U%%; redis_reconnect 20ms 100ms;
                     subscribe 'all:*' 'no:*'; }
END
    my $sse = RT::SSE->new($ngx, '/rt/open:a');
    my $denied = RT::SSE->new($ngx, '/rt/secret');
    $redis->wait_sub('open:a');
    $ngx->wait_log(qr/channel "secret" denied: .*"NOPERM /);
    $ngx->wait_log(qr/pattern "no:\*" denied: .*"NOPERM /);
    $redis->publish('open:a', 'x');
    $sse->expect('x');
    is(feed_state($ngx), 'live', 'one channel denied: live all the same');
    is(feed($ngx)->{reconnects}, 0, 'and never lost');
    is(post($ngx, '/publish?channel=secret', 'x')->status, 502,
        'denied to publish');

    $ngx->mark;
    $redis->cmd(ACL => 'SETUSER', 'u', '-subscribe');
    $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
    $ngx->wait_log(qr/lost .*connection closed by Redis/);
    $ngx->wait_log(qr/says "NOPERM .*command/);
    stays { lines($ngx) <= 4 } 1, 'the command denied: not a line each time';
    $redis->cmd(ACL => 'SETUSER', 'u', '+subscribe');
    wait_ok { $redis->numsub('open:a') == 1 && feed_state($ngx) eq 'live' } 4,
        'allowed again';
};

subtest 'several urls are tried in turn' => sub {
    my ($one, $two) = (RT::Redis->new(start => 0), RT::Redis->new);
    my $ngx = RT::Nginx->new(vars => { ONE => $one->url, TWO => $two->url },
        workers => 2, http => <<'END', server => $server);
        rt_hub app { redis %%ONE%% %%TWO%%; redis_reconnect 20ms 100ms; }
END
    wait_ok { feed_state($ngx) eq 'live' } 3, 'the second one is there';
    is(feed($ngx)->{server}, '127.0.0.1:' . $two->port, 'and shown');
    my $sse = RT::SSE->new($ngx, '/rt/a');
    $two->wait_sub('a');
    is(post($ngx, '/publish?channel=a', 'via two')->status, 202, 'publish');
    $sse->expect('via two');
    $one->start;
    $two->kill9;
    recovered($ngx, sub (@args) { $one->publish(@args) }, $sse, 'the first');
    is(feed($ngx)->{server}, '127.0.0.1:' . $one->port, 'shown');
    is(scalar(lines($ngx)), 3, 'live, lost, live');
};

subtest 'a name, looked up again on each reconnect' => sub {
    my $port = RT::free_port();
    my $redis = RT::Redis->new;
    my $zone = dir() . '/dns';
    my $dns = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $port, Proto => 'udp') or die "udp: $!";
    my $pid = RT::spawn(sub {
        while (defined $dns->recv(my $q, 512)) {
            my ($id, $question) = (substr($q, 0, 2), substr $q, 12);
            my $type = unpack 'n', substr $question, -4, 2;
            my $ip = slurp($zone);
            my @ip = $type == 1 && $ip ? split(/\./, $ip) : ();
            $dns->send($id . pack('n5', $ip ? 0x8180 : 0x8183, 1, @ip ? 1 : 0,
                0, 0) . $question . (@ip ? pack('n3Nn C4', 0xc00c, 1, 1, 1, 4,
                @ip) : ''));
        }
    });
    close $dns;

    my $ngx = RT::Nginx->new(vars => { DNS => $port, RPORT => $redis->port },
        workers => 2, http => <<'END', server => $server);
        resolver 127.0.0.1:%%DNS%% valid=1s ipv6=off;
        rt_hub app { redis redis://redis.test.invalid:%%RPORT%%;
                     redis_reconnect 20ms 100ms; redis_timeout 300ms 500ms; }
END
    $ngx->wait_log(qr/no feed from Redis redis.test.invalid:\d+: host not found/);
    stays { lines($ngx) == 1 } 0.5, 'unknown: one line';
    is(get($ngx, '/rt/a')->status, 503, 'unknown: the workers go on');
    RT::spew($zone, '127.0.0.1');
    wait_ok { feed_state($ngx) eq 'live' } 5, 'known: live';
    is(feed($ngx)->{server}, 'redis.test.invalid:' . $redis->port, 'shown');
    is(post($ngx, '/publish?channel=a', 'x')->status, 202,
        'a publish looks it up, too');
    RT::spew($zone, '127.0.0.2');       # nobody listens there
    wait_ok {
        # the answer of before is good for another second
        $redis->cmd(CLIENT => KILL => TYPE => 'pubsub');
        feed_state($ngx) eq 'down';
    } 5, 'moved away: followed';
    RT::spew($zone, '127.0.0.1');
    wait_ok { feed_state($ngx) eq 'live' } 5, 'moved back: followed';
    $ngx->stop;
    RT::kill_group($pid);
};

subtest 'quit while Redis is away, while a publish waits' => sub {
    my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
        return if $cmd[0] eq 'PUBLISH' && $conn->mode eq 'silent';
        $conn->default(@cmd);
    });
    my $ngx = RT::Nginx->new(redis => $fake, http => <<'END', server => $server);
        rt_hub app { redis %%REDIS%%; redis_timeout 500ms 1s; }
END
    wait_for { feed_state($ngx) eq 'live' } 3, 'live';
    $fake->mode('silent');
    my $http = RT::HTTP->new($ngx);
    $http->send(POST => '/publish?channel=a', body => 'x', close => 1);
    wait_for { () = $fake->commands(qr/^PUBLISH/) } 3, 'sent';
    $ngx->quit;
    is($http->read->status, 502, 'the answer was lost, and that is said');
    $http->close;
    wait_ok { !RT::running($ngx->pid) } 5, 'then the worker is gone';
    is(scalar($ngx->log(qr/\[alert\]|exited on signal/)), 0, 'in good order');
    $ngx->{stopped} = 1;

    $fake->stop;
    $ngx = RT::Nginx->new(redis => $fake, workers => 2, http => <<'END',
        rt_hub app { redis %%REDIS%%; }
END
        server => $server);
    $ngx->wait_log(qr/no feed/);
    my $start = time;
    ok($ngx->stop, 'away: ends');
    cmp_ok(time - $start, '<=', 2, 'at once');
};

done_testing;
