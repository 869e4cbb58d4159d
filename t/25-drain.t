# What becomes of streams when workers go: a drain spread over rt_drain, with
# a last retry; reloads that change hubs, or fail; QUIT, TERM and
# worker_shutdown_timeout.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;

sub hub ($ngx, $name = 'app') {
    my $hubs = decode_json(get($ngx, '/status')->body)->{hubs};
    return (grep { $_->{name} eq $name } @$hubs)[0];
}

sub told (@events) {
    return join ' ', map {
        $_->{event} eq 'rt.gap'
            ? 'gap:' . ($_->{data} =~ /"reason":"([^"]*)"/ ? $1 : '?')
            : $_->{data} } @events;
}

sub placed (@streams) {
    return wait_for {
        RT::SSE::pump(0.02, @streams);
        !grep { $_->last_id eq '' } @streams;
    } 5, 'places';
}

# opens the same again where SSE has ended, as a client would
sub again ($ngx, $sse, $path) {
    return RT::SSE->new($ngx, $path, last => $sse->last_id);
}

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location /status { rt_status json; }
END

# the log that has a line for each stream that ended, with the time: of those
# that are attached nginx' own, with milliseconds
for my $detach ('off', 'on') {
subtest "a drain is spread, the last retry too, rt_detach $detach" => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        http => 'rt_hub app { redis %%REDIS%%; history 4000; }
            log_format end "$msec $rt_close";',
        server => "rt_drain 2s; rt_retry 10s; $server rt_detach $detach;
            access_log %%DIR%%/end.log end;
            rt_stream_log %%DIR%%/stream.log;");
    my $n = 200;
    my @sse = map { RT::SSE->new($ngx, '/rt/c') } 1 .. $n;
    placed(@sse);
    $redis->wait_sub('c');
    my @first = map { $_->retry } @sse;
    my (@ended, @next);
    my ($sent, $all) = (0, 0);
    my $start = time;
    $ngx->signal('HUP');
    wait_for { $ngx->old_workers } 5, 'the old ones quit';
    wait_ok {
        while ($sent < (time - $start) * 40) {
            $redis->publish(c => $sent++);
        }
        RT::SSE::pump(0.01, grep { !$_->ended(0) } @sse, grep { $_ } @next);
        for my $i (0 .. $n - 1) {
            if (!$next[$i] && $sse[$i]->ended(0)) {
                $ended[$i] = time;
                $next[$i] = RT::SSE->new($ngx, '/rt/c', wait_head => 0,
                                         last => $sse[$i]->last_id);
            }
        }
        $n == grep { $_ } @ended;
    } 10, 'all end';
    # by the clock of nginx
    is(scalar(() = slurp($ngx->dir . '/stream.log') =~ / drain$/mg), $n,
        'all for the drain');
    my @at = sort { $a <=> $b } $detach eq 'on' ? @ended
        : slurp($ngx->dir . '/end.log') =~ /^(\S+) drain$/mg;
    is(scalar @at, $n, 'the time of each');
    my @quarter = (0) x 4;
    $quarter[($_ - $at[0]) * 3.999 / ($at[-1] - $at[0])]++ for @at;
    ok(asan() || !(grep { $_ < $n / 10 || $_ > $n / 2.2 } @quarter),
        "spread: @quarter in each quarter");
    my $took = $at[-1] - $at[0];
    ok($took > 1.5 && $took < RT::scale(2.5),
        sprintf 'over rt_drain: %.2f s', $took);
    is(scalar(grep { $_->clean } @sse), $n, 'each ends cleanly');
    is(scalar(grep { $_->raw =~ /\nretry: \d+\n\n\z/ } @sse), $n,
        'the last line is a retry');
    my @last = map { $_->retry } @sse;
    is(scalar(grep { $_ < 5000 || $_ > 15000 } @last, @first), 0,
        'within half of rt_retry');
    my %seen = map { $_ => 1 } @last;
    cmp_ok(scalar keys %seen, '>', $n / 2, 'that vary');
    ok((grep { $last[$_] != $first[$_] } 0 .. $n - 1) > $n / 2,
        'and are not those of the begin');

    $redis->publish(c => 'end');
    wait_ok {
        RT::SSE::pump(0.02, @next);
        $n == grep { $_->{events}[-1] && $_->{events}[-1]{data} eq 'end' }
            @next;
    } 5, 'all arrived';
    my $want = join ' ', 0 .. $sent - 1, 'end';
    is(scalar(grep { told($sse[$_]->wait(1e6, 0), $next[$_]->wait(1e6, 0))
        ne $want } 0 .. $n - 1), 0,
        "$sent messages over the reconnect: each once, in order, no gap");
    wait_ok { !$ngx->old_workers } 5, 'old workers are gone';
};
}

subtest 'HTTP/2: the same' => sub {
    my $version = join '', curl('--version');
    if ($version !~ /HTTP2/) {
        pass('curl has no HTTP/2');
        return;
    }
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 1,
        http => 'rt_hub app { redis %%REDIS%%; }', server => <<"END");
        listen 127.0.0.1:%%PORT1%% http2;
        rt_drain 1s; $server
END
    my @url = map { sprintf 'http://127.0.0.1:%d/rt/%s', $ngx->port(1), $_ }
        qw(a b c);
    my $out = dir() . '/h2';
    my @pids = map { RT::spawn([qw(curl -sN --http2-prior-knowledge -m 15 -H),
        'Accept: text/event-stream', $url[$_]], out => "$out.$_") } 0 .. 2;
    $redis->wait_sub($_) for qw(a b c);
    wait_for { 3 == grep { slurp("$out.$_") =~ /^id: /m } 0 .. 2 } 5, 'places';
    $redis->publish($_ => 'last words') for qw(a b c);
    $ngx->signal('HUP');
    my %status;
    wait_ok {
        for my $pid (grep { !exists $status{$_} } @pids) {
            $status{$pid} = $? if !RT::running($pid);
        }
        3 == keys %status;
    } 5, 'all streams end';
    is(join(' ', sort values %status), '0 0 0', 'cleanly');
    is(scalar(grep { slurp("$out.$_")
        =~ /\ndata: last words\n\nretry: \d+\n\n\z/ } 0 .. 2), 3,
        'with all messages and a retry');
    wait_ok { !$ngx->old_workers } 3, 'the old worker is gone';
};

subtest 'a reload that fails changes nothing' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        http => 'rt_hub app { redis %%REDIS%%; }', server => $server,
        allow => [qr/\[emerg\]/]);
    my $sse = RT::SSE->new($ngx, '/rt/c');
    placed($sse);
    $redis->wait_sub('c');
    $redis->publish(c => 'one');
    $sse->expect('one');
    my $etag = get($ngx, '/rt/c')->header('ETag');
    my @workers = $ngx->workers;
    my $before = hub($ngx)->{feed};
    for my $case (
        ['nonsense', 'rt_hub app { redis %%REDIS%%; } nonsense;',
            qr/unknown directive "nonsense"/],
        ['a small zone', 'rt_hub app { redis %%REDIS%%; zone 64k; }',
            qr/too small/],
        ['another small zone', 'rt_hub app { redis %%REDIS%%; }
            rt_hub other { zone 64k; }', qr/too small/],
        ['what fails after the zones', 'rt_hub app { redis %%REDIS%%; }
            rt_hub more { zone 8m; }
            server { listen 192.0.2.1:%%PORT%%; }', qr/bind\(\) to 192/])
    {
        my ($name, $http, $line) = @$case;
        $ngx->mark;
        $ngx->{args}{http} = $http;
        $ngx->_write_conf;
        $ngx->signal('HUP');
        $ngx->wait_log($line, 10);
        $redis->publish(c => $name);
        $sse->expect($name);
        is(get($ngx, '/rt/c', headers => ['If-None-Match' => $etag])->status,
            200, "$name: another version");
        $etag = get($ngx, '/rt/c')->header('ETag');
        is(get($ngx, '/rt/c', headers => ['If-None-Match' => $etag])->status,
            304, "$name: is current");
        is_deeply([$ngx->workers], \@workers, "$name: the same workers");
        my $feed = hub($ngx)->{feed};
        is_deeply([@$feed{qw(worker reconnects gaps state)}],
            [@$before{qw(worker reconnects gaps state)}],
            "$name: the same feed");
    }
    # and one that works goes on from there
    $ngx->reload(http => 'rt_hub app { redis %%REDIS%%; }');
    is(get($ngx, '/rt/c', headers => ['If-None-Match' => $etag])->status,
        304, 'then one that works: still current');
};

subtest 'a reload that changes hubs' => sub {
    my ($redis, $two) = (RT::Redis->new, RT::Redis->new);
    my $hubs = <<'END';
        rt_drain 4s; rt_retry 50ms;
        rt_hub keep   { redis %%REDIS%%; zone 8m; history 1000; prefix k:; }
        rt_hub other  { redis %%REDIS%%; zone 8m; history 1000; prefix o:; }
END
    my $old = $hubs . <<'END';
        rt_hub gone   { redis %%REDIS%%; zone 8m; history 1000; prefix g:; }
        rt_hub prefix { redis %%REDIS%%; zone 8m; history 1000; prefix old:; }
        rt_hub json   { redis %%REDIS%%; zone 8m; history 1000; prefix j:; }
        rt_hub zone   { redis %%REDIS%%; zone 8m; history 1000; prefix z:; }
        rt_hub url    { redis %%REDIS%%; zone 8m; history 1000; prefix u:; }
        rt_hub mem    { zone 8m; }
END
    my $new = $hubs . <<'END';
        rt_hub added  { redis %%REDIS%%; zone 8m; history 1000; prefix a:; }
        rt_hub prefix { redis %%REDIS%%; zone 8m; history 1000; prefix new:; }
        rt_hub json   { redis %%REDIS%%; zone 8m; history 1000; prefix j:; payload json; }
        rt_hub zone   { redis %%REDIS%%; zone 9m; history 1000; prefix z:; }
        rt_hub url    { redis %%TWO%%; zone 8m; history 1000; prefix u:; }
        rt_hub mem    { redis %%REDIS%%; zone 8m; history 1000; prefix m:; }
END
    my $locations = sub (@names) {
        return join '', 'location /status { rt_status json; }',
            'location = /publish { rt_publish mem $arg_channel; }',
            map { "location = /$_ { rt_subscribe $_ c; }" } @names;
    };
    my @names = qw(keep gone prefix json zone url mem);
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => $old,
        server => $locations->('other', @names),
        vars => { TWO => $two->url });
    # several streams of each: one of them lasts the longest, at chance longer
    # than a second, all but one time in millions
    my %all = map { my $name = $_;
        $name => [map { RT::SSE->new($ngx, "/$name") } 1 .. 12] } @names;
    my %sse;
    placed(map { @$_ } values %all);
    my %ch = (keep => 'k:c', gone => 'g:c', prefix => 'old:c', json => 'j:c',
              zone => 'z:c', url => 'u:c', mem => 'm:c');
    my $publish = sub ($text) {
        for my $name (@names) {
            if ($name eq 'mem') { post($ngx, '/publish?channel=c', $text) }
            else { $redis->publish($ch{$name} => qq("$text")) }
        }
    };
    $redis->wait_sub($ch{$_}) for grep { $_ ne 'mem' } @names;
    $publish->('one');
    for my $name (@names) {
        is(scalar(grep { ($_->event // {})->{data} !~ /^"?one"?$/ }
            @{$all{$name}}), 0, "$name: live");
    }
    $ngx->reload(http => $new, server => $locations->('added', @names[0,
        2 .. $#names]));
    wait_for { $ngx->old_workers == 2 } 3, 'the old ones quit';

    # the old workers' streams, for as long as they are there: some seconds
    # of messages, which go to two generations
    my ($sent, $start) = (0, time);
    my $done = wait_ok {
        while ($sent < (time - $start) * 50) {
            $sent++;
            for my $name (@names) {
                # mem is another hub now, which is fed from Redis
                $redis->publish($ch{$name} => qq("$sent"));
            }
        }
        for my $name (@names) {
            for my $sse (@{$all{$name}}) {
                if ($sse->ended(0)) { $sse{$name} = $sse if !$sse->{seen}++ }
            }
        }
        RT::SSE::pump(0.01, grep { !$_->{seen} } map { @$_ } values %all);
        !grep { !$_->{seen} } map { @$_ } values %all;
    } 8, 'all streams of old workers end';
    for my $name (@names) {
        is(scalar(grep { !$_->clean } @{$all{$name}}), 0, "$name: cleanly");
        my @got = map { s/"//gr } split / (?!feed|cursor)/,
            told($sse{$name}->wait(1e6, 0));
        if ($name eq 'url') {
            like("@got", qr/^(?:\d{1,2} )*gap:feed$/,
                "$name: from the other Redis after a gap, not from both");
        } elsif ($name eq 'mem') {
            is("@got", '', "$name: the old hub has no messages");
        } else {
            my $want = join ' ', 1 .. @got;
            is("@got", $want, "$name: the old workers deliver to the end: "
                . @got);
            cmp_ok(scalar @got, '>', 45, "$name: many");
        }
    }
    is(get($ngx, '/gone')->status, 404, 'a hub that is gone is gone');
    my $added = RT::SSE->new($ngx, '/added');
    placed($added);
    $redis->wait_sub('a:c');
    $redis->publish('a:c' => 'x');
    $added->expect('x');

    # clients come back
    my %now = (prefix => 'new:c');
    for my $name (grep { $_ ne 'gone' } @names) {
        my $back = again($ngx, $sse{$name}, "/$name");
        my $r = $name eq 'url' ? $two : $redis;
        my $channel = $now{$name} // $ch{$name};
        $r->wait_sub($channel);
        placed($back);
        $r->publish($channel => $name eq 'json' ? '{"data":"back"}'
                                                : '"back"');
        my @got;
        RT::poll_until(sub {
            push @got, $back->wait(1e6, 0.05);
            @got && $got[-1]{data} =~ /back/
        }, 5);
        my $text = told(@got);
        if ($name eq 'keep' || $name eq 'url') {
            unlike($text, qr/gap/, "$name: no gap");
        } else {
            like($text, qr/^gap:unknown cursor/,
                "$name: a gap is told: " . substr $text, 0, 60);
        }
        like($text, qr/back"?$/, "$name: live");
    }
    wait_ok { !$ngx->old_workers } 8, 'old workers are gone';
};

done_testing;
