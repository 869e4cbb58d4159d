# More of what Redis and the network may do, under load: streams stay open,
# what is missing was told, nothing comes twice, polls are right, the log has a
# line for a change.  See t/21-redis-faults.t and t/23-reconnect.t.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;
use RT::Proxy;
use RT::Storm;

my $bound = 1 + 0.4;            # and the longest redis_reconnect

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location /publish { rt_publish app $arg_channel; }
    location /status { rt_status json; }
END
my $hub = <<'END';
    rt_hub app { redis %%URL%%; redis_timeout 400ms 400ms; history 4000;
                 redis_reconnect 100ms 400ms; }
END

sub feed ($ngx) {
    return decode_json(get($ngx, '/status')->body)->{hubs}[0]{feed};
}

sub live ($ngx) { return feed($ngx)->{state} eq 'live' }

sub lines ($ngx) {
    return $ngx->log(qr/rt_hub "app": (?:live|lost|no feed)/);
}

sub poll ($ngx, $path, $etag = undef) {
    return get($ngx, $path,
        headers => [$etag ? ('If-None-Match' => $etag) : ()]);
}

# status, body, ETag or not
sub answer ($r) {
    return join ' ', $r->status, $r->body, $r->header('ETag') ? 'ETag' : '-';
}

sub told (@events) {
    return join ' ', map {
        $_->{event} eq 'rt.gap'
            ? 'gap:' . ($_->{data} =~ /"reason":"([^"]*)"/ ? $1 : '?')
            : $_->{data} } @events;
}

my $redis = RT::Redis->new(start => 0, args => [requirepass => 'right'],
                           password => 'right');
start();
my $proxy = RT::Proxy->new($redis->port);
my $other = RT::Redis->new(start => 0, args => [requirepass => 'right'],
                           password => 'right');

# of a server that is new, the user is gone
sub user {
    $redis->cmd(ACL => 'SETUSER', 'app', 'on', '>pw', '+@all', '~*', '&*');
}

sub start {
    $redis->start;
    user();
}

sub shut_down ($how) {
    eval { $redis->cmd(SHUTDOWN => $how) };
    RT::poll_until(sub { !RT::running($redis->pid) }, 5);
    delete $redis->{pid};
}

# away: back: what is done; short: it is no longer than a reconnect, and may
# not be seen in the status
my @cases = (
    ['restarted, saved', sub { shut_down('SAVE') }, \&start],
    ['restarted, not saved', sub { shut_down('NOSAVE') }, \&start],
    ['the network frozen', sub { $proxy->freeze }, sub { $proxy->flow }],
    ['RST in the middle', sub { $proxy->cut(10_007) }, undef],
    ['the output buffer is full', sub {
            $redis->cmd(CONFIG => SET => 'client-output-buffer-limit' =>
                        'pubsub 1 1 1');
            $redis->pipeline([MULTI => ],
                map({ [PUBLISH => "c$_", 'big' . 'x' x 100_000] } (1 .. 5) x 3),
                ['EXEC']);
            $redis->cmd(CONFIG => SET => 'client-output-buffer-limit' =>
                        'pubsub 32mb 8mb 60');
        }, undef],
    ['the user is deleted', sub { $redis->cmd(ACL => DELUSER => 'app') },
        \&user],
);

{
    my $ngx = RT::Nginx->new(workers => 3, http => $hub, server => $server,
        vars => { URL => 'redis://app:pw@127.0.0.1:' . $proxy->port });
    my @workers = $ngx->workers;
    my @channels = map { "c$_" } 1 .. 12;
    my $storm = RT::Storm->new($ngx, channels => \@channels, each => 3,
        rate => 300, publish => sub ($channel, $n) {
            $redis->publish($channel, $n);
            return 1;
        });
    my $event = RT::Storm->can('_event');
    no warnings 'redefine';
    # the burst of one case has no numbers
    local *RT::Storm::_event = sub ($self, $c, $e) {
        $event->($self, $c, $e) if $e->{data} !~ /^big/;
    };
    use warnings;
    $storm->open;
    wait_for { live($ngx) } 5, 'live';
    $storm->finish;
    poll($ngx, '/rt/quiet');
    $redis->wait_sub('quiet');
    my ($reconnects, $gaps) = (0, 0);

    for my $case (@cases) {
        my ($name, $away, $back) = @$case;
        $redis->publish(quiet => $name);
        wait_for { poll($ngx, '/rt/quiet')->body eq $name } 3, 'known';
        my $etag = poll($ngx, '/rt/quiet')->header('ETag');
        is(poll($ngx, '/rt/quiet', $etag)->status, 304, "$name: current");
        my $lines = lines($ngx);
        my $n = feed($ngx)->{reconnects};
        $away->();
        if ($back) {
            $storm->until(sub { !live($ngx) }, 5, "$name: noticed");
            is(answer(poll($ngx, '/rt/quiet', $etag)), "200 $name -",
                "$name: a poll gets what is retained");
            my $r = poll($ngx, "/rt/new$lines");
            is($r->status, 503, "$name: or is told");
            $storm->run(0.7);
            is(scalar(grep { /lost/ } (lines($ngx))[$lines .. lines($ngx) - 1]),
                1, "$name: one line that it is lost");
            cmp_ok(lines($ngx) - $lines, '<=', 2,
                "$name: two at most, when it is refused");
            $lines = lines($ngx);
            $back->();
        } else {
            $storm->until(sub { feed($ngx)->{reconnects} > $n }, 5,
                "$name: noticed");
        }
        my $start = time;
        RT::poll_until(sub { $storm->_turn;
            live($ngx) && poll($ngx, '/rt/quiet')->header('ETag') }, 10);
        my $took = time - $start;
        cmp_ok($took, '<', RT::scale($bound),
            sprintf '%s: live again after %.2f s', $name, $took);
        $storm->finish;
        # nothing was certain meanwhile, so its version is another
        my $r = poll($ngx, '/rt/quiet', $etag);
        is(answer($r), "200 $name ETag", "$name: no 304 for what may have "
            . 'changed');
        is(poll($ngx, '/rt/quiet', $r->header('ETag'))->status, 304,
            "$name: then current again");
        # after a refusal it is told when it has lasted
        wait_ok { lines($ngx) - $lines == ($back ? 1 : 2) } 3,
            "$name: one line that it is live";
        my $v = $storm->judge($name);
        cmp_ok($v->{gaps} - $gaps, '>=', $v->{clients},
            "$name: each was told a gap");
        is($v->{gaps} - $gaps, $v->{clients}, "$name: one gap")
            if $name !~ /restarted/;
        $gaps = $v->{gaps};
        is($v->{connects}, $v->{clients}, "$name: streams stay open");
    }
    is_deeply([$ngx->workers], \@workers, 'the same workers');
    $storm->close;
    $ngx->stop;
}

subtest 'another server with other content on the same port' => sub {
    my $port = $redis->port;
    my $ngx = RT::Nginx->new(workers => 2, http => $hub, server => $server,
        vars => { URL => $redis->url });
    my $sse = RT::SSE->new($ngx, '/rt/x');
    $redis->wait_sub('x');
    $redis->publish(x => 'of the one');
    $sse->expect('of the one');
    my $id = $sse->last_id;
    my $etag = poll($ngx, '/rt/x')->header('ETag');
    $redis->stop;
    $other->{port} = $port;
    $other->start;
    $other->wait_sub('x');
    is(told($sse->wait(1)), 'gap:feed', 'a gap is told');
    is(answer(poll($ngx, '/rt/x', $etag)), '200 of the one ETag',
        'a poll has what is retained');
    $other->publish(x => 'of the other');
    $sse->expect('of the other');
    is(answer(poll($ngx, '/rt/x', $etag)), '200 of the other ETag', 'then new');
    my $back = RT::SSE->new($ngx, '/rt/x', last => $id);
    is(told($back->wait(2)), 'gap:feed of the other',
        'a cursor of before gets the gap, too');
    $ngx->stop;
    $other->stop;
    $redis->start;
};

subtest 'a message, a confirmation, cut at every byte' => sub {
    my %done;
    my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
        if ($conn->mode =~ /^(\d+)$/ && $cmd[0] eq 'SUBSCRIBE'
            && $cmd[1] !~ /rt.cut/ && !$done{$1}++)
        {
            my $reply = "*3\r\n\$9\r\nsubscribe\r\n\$1\r\na\r\n:1\r\n";
            return $conn->cut(substr $reply, 0, $1);
        }
        $conn->default(@cmd);
    });
    my $ngx = RT::Nginx->new(workers => 2, server => $server,
        vars => { URL => $fake->url }, http => <<'END');
        rt_hub app { redis %%URL%%; redis_reconnect 1ms 5ms; }
END
    my @workers = $ngx->workers;
    my $sse = RT::SSE->new($ngx, '/rt/a');
    my $reply = "*3\r\n\$7\r\nmessage\r\n\$1\r\na\r\n\$6\r\nburied\r\n";
    my @bad;
    my $n = () = $fake->commands(qr/^SUBSCRIBE a$/);
    my $again = sub ($what, $whole) {
        RT::poll_until(sub {
            $fake->push('a', $what) > 0 }, 5) or push @bad, "$what: not back";
        my @got;
        RT::poll_until(sub { push @got, $sse->wait(1e6, 0.02);
                             @got && $got[-1]{data} eq $what }, 5);
        my $want = ($whole ? 'buried ' : '') . "gap:feed $what";
        push @bad, "$what: " . told(@got) if told(@got) ne $want;
    };
    wait_ok { $fake->push('a', 'first') } 5, 'live';
    is(told($sse->wait(1)), 'first', 'fed');
    for my $at (1 .. length $reply) {
        $fake->raw(substr $reply, 0, $at);
        # taken before it is cut, when it is whole
        is(told($sse->wait(1)), 'buried', 'whole') if $at == length $reply;
        $fake->drop;
        $again->("m$at", 0);
    }
    for my $at (0 .. 29) {
        $fake->mode($at);
        $fake->drop;
        wait_for { grep { $_ > 0 } $fake->push('a', "s$at") } 5, 'back';
        $fake->mode('');
        my @got;
        RT::poll_until(sub { push @got, $sse->wait(1e6, 0.02);
                             @got && $got[-1]{data} eq "s$at" }, 5);
        push @bad, "s$at: " . told(@got) if told(@got) ne "gap:feed s$at";
    }
    is(scalar @bad, 0, 'a gap and then the next message, each time')
        or diag(join "\n", @bad);
    is_deeply([$ngx->workers], \@workers, 'the same workers');
};

subtest 'no memory for a PUBLISH' => sub {
    my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
        return $conn->err("OOM command not allowed when used memory > "
            . "'maxmemory'.") if $cmd[0] eq 'PUBLISH' && $conn->mode eq 'oom';
        $conn->default(@cmd);
    });
    my $ngx = RT::Nginx->new(workers => 2, server => "rt_drain 30s; $server",
        http => $hub, vars => { URL => $fake->url });
    my $sse = RT::SSE->new($ngx, '/rt/a');
    wait_for { $fake->push('a', 'one') } 5, 'live';
    $sse->expect('one');
    $fake->mode('oom');
    my $r = post($ngx, '/publish?channel=a', 'x');
    is($r->status, 503, 'is told');
    ok(live($ngx), 'the feed goes on');
    $fake->push('a', 'two');
    $sse->expect('two');
    # nor for the marker of a reload
    my %old = map { $_ => 1 } $ngx->workers;
    $ngx->signal('HUP');
    is(told($sse->wait(1, 5)), 'gap:feed', 'a reload has a gap then');
    wait_ok { my $f = feed($ngx); $f->{state} eq 'live' && !$old{$f->{worker}}
              && $fake->push('a', 'three') } 5, 'and another feeder';
    is(told($sse->wait(1)), 'three', 'the old streams go on');
    $sse->close;
};

subtest 'stale' => sub {
    my $ngx = RT::Nginx->new(workers => 2, server => <<'END',
        location ~ ^/keep/(?<channel>.+)$ { rt_subscribe keep $channel; }
        location ~ ^/none/(?<channel>.+)$ { rt_subscribe none $channel; }
        location ~ ^/never/(?<channel>.+)$ { rt_subscribe never $channel; }
        location /status { rt_status json; }
END
        vars => { URL => $redis->url, AWAY => 'redis://127.0.0.1:'
            . RT::free_port() }, http => <<'END');
        rt_hub keep  { redis %%URL%%; zone 8m; stale 4s;
                       redis_timeout 300ms 400ms; }
        rt_hub none  { redis %%URL%%; zone 8m; redis_timeout 300ms 400ms; }
        rt_hub never { redis %%AWAY%%; zone 8m; stale 1h; }
END
    # never live: whatever stale says
    my $r = poll($ngx, '/never/a', '*');
    is($r->status . ' ' . ($r->header('Retry-After') ? 'later' : ''),
        '503 later', 'never live: nothing is retained');

    my $known = sub ($text) {
        poll($ngx, '/keep/s');
        poll($ngx, '/none/s');
        $redis->wait_sub('s', 2);
        $redis->publish(s => $text);
        wait_for { poll($ngx, '/keep/s')->body eq $text
                   && poll($ngx, '/none/s')->body eq $text } 5, 'known';
        return map { poll($ngx, "/$_/s")->header('ETag') } qw(keep none);
    };
    my $hubs = sub {
        return @{decode_json(get($ngx, '/status')->body)->{hubs}};
    };

    # the feeder hangs, and Redis with it: nobody can feed
    my ($keep, $none) = $known->('one');
    my %feeder = map { $_->{name} => $_->{feed}{worker} } $hubs->();
    isnt($feeder{keep}, $feeder{none}, 'the hubs are fed by two workers');
    my $held = $feeder{keep};
    RT::freeze($held);
    $redis->pause;
    my $start = time;
    my ($last, $first);
    wait_ok {
        my $r = poll($ngx, '/keep/s', $keep);
        if ($r->status == 304) { $last = time - $start }
        else                   { $first //= time - $start }
        defined $first && time - $start > 5.5;
    } 15, 'a feeder that hangs, Redis away';
    ok($last > 3.2 && $last < RT::scale(4.6),
        sprintf '304 for %.2f s, which is stale', $last);
    ok($first > $last, 'not again afterwards');
    is(answer(poll($ngx, '/keep/s', $keep)), '200 one -', 'then in full');
    is(answer(poll($ngx, '/keep/s', '*')), '200 one -', 'and for *');
    kill CONT => $held;
    $redis->resume;
    wait_ok { $redis->numsub('s') == 2 } 8, 'back';
    wait_ok { my $r = poll($ngx, '/keep/s');
              $r->header('ETag') && $r->header('ETag') ne $keep } 3,
        'another version, for nobody knows';
    is(poll($ngx, '/keep/s', $keep)->status, 200, 'no 304 for the old one');

    # stale 0: at once
    ($keep, $none) = $known->('two');
    is(poll($ngx, '/none/s', $none)->status, 304, 'stale 0: current');
    $redis->kill9;
    wait_for { !grep { $_->{feed}{state} eq 'live' } $hubs->() } 3, 'noticed';
    is(answer(poll($ngx, '/none/s', $none)), '200 two -', 'at once in full');
    is(poll($ngx, '/keep/s', $keep)->status, 304, 'stale 4s: not yet');
    is(poll($ngx, '/none/nothing', '*')->status, 503, 'nothing retained');
    is(poll($ngx, '/keep/nothing', '*')->status, 204, 'stale 4s: not yet');

    # after its return: certain when the channel is confirmed again
    $redis->start;
    my $early = 0;
    wait_ok {
        my $r = poll($ngx, '/none/s', $none);
        $early++ if $r->status == 304;
        my $etag = $r->header('ETag');
        $etag && poll($ngx, '/none/s', $etag)->status == 304;
    } 8, 'then 304 for what is current';
    is($early, 0, 'never for what was current before');
    cmp_ok($redis->numsub('s'), '>', 0, 'when it is subscribed');
};

done_testing;
