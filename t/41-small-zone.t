# A zone of 1m and 10,000 channels: publishing never fails, what is used is
# kept, what had to go is never taken for current.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;

my $channels = 10_000;
my $batch = 50;

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
    rt_hub mem { zone 1m; }
    rt_hub app { zone 1m; redis %%REDIS%%; subscribe *; }
END
    server => <<'END');
    client_max_body_size 1m;
    keepalive_requests 100000;
    location ~ ^/(?<hub>mem)/(?<channel>\w+)$ { rt_subscribe mem $channel; }
    location ~ ^/(?<hub>app)/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location = /publish { rt_publish mem $arg_channel; }
    location = /status { rt_status json; }
END

sub hub ($name) {
    my $hubs = decode_json(get($ngx, '/status')->body)->{hubs};
    return (grep { $_->{name} eq $name } @$hubs)[0];
}

# the default of message_max gives way, and that is said

my %limit;
for my $name ('mem', 'app') {
    ($limit{$name}) = ($ngx->log(qr/"message_max" of rt_hub "$name"/))[0]
        =~ /\[warn\].* is lowered from 262144 to (\d+) bytes/;
    ok($limit{$name} > 64 * 1024 && $limit{$name} < 128 * 1024,
        "$name: message_max is lowered to what 1m holds, $limit{$name}");
}
my ($ok, $out) = nginx_t(http => 'rt_hub app { zone 1m; }');
ok($ok, 'nginx -t accepts it');
like($out, qr/\[warn\] "message_max" of rt_hub "app" is lowered.* in \S+:\d+$/m,
    'with a warning');
unlike((nginx_t(http => "rt_hub app { zone 1m; message_max $_; }"))[1],
    qr/lowered/, "none for message_max $_")
    for '16k', $limit{app};
like((nginx_t(http => 'rt_hub app { zone 1m; message_max 256k; }'))[1],
    qr/\[emerg\].*too small/, 'what is set does not give way');

# HUB => publishes [CHANNEL, DATA]...; the ids, where there are any

my $http = RT::HTTP->new($ngx, timeout => 20);
my %publish = (
    mem => sub (@messages) {
        $http->send(POST => "/publish?channel=$_->[0]", body => $_->[1])
            for @messages;
        my (@id, %status);
        for (@messages) {
            my $r = $http->read // die "connection closed\n";
            $status{$r->status}++;
            push @id, $r->body =~ /"id":"([^"]+)"/ ? $1 : undef;
        }
        is_deeply(\%status, { 202 => scalar @messages }, 'each is 202')
            if keys %status > 1 || !$status{202};
        return @id;
    },
    app => sub (@messages) {
        $redis->pipeline(map { [PUBLISH => @$_] } @messages);
        return;
    },
);

sub poll ($hub, $channel, $etag = undef) {
    return get($ngx, "/$hub/$channel",
        headers => [$etag ? ('If-None-Match' => $etag) : ()]);
}

for my $hub ('mem', 'app') {
    my $publish = $publish{$hub};
    my $large = 'x' x $limit{$hub};

    wait_for { hub($hub)->{feed}{state} =~ /live|embedded/ } 5, 'live';
    my $sse = RT::SSE->new($ngx, "/$hub/watched", keep_raw => 0);
    wait_for { $sse->wait(0, 0.1); defined $sse->last_id } 5, 'a place';
    if ($hub eq 'app') {
        wait_ok { $redis->cmd(PUBSUB => 'NUMPAT') == 1 } 5, 'the pattern';
        # the first message may be that of before the pattern
        wait_for { $publish->(['watched', 'first']); $sse->event(1) } 5,
            'heard';
        $sse->wait(1000, 0.3);
    }

    # with the etags of some, and polls of others as it goes

    my (%etag, @sent, @got, @bad);
    my ($n, $size, $polls) = (0, 0, 0);
    while ($n < $channels) {
        my $first = $n;
        my @messages = map { ["c$_", "data $_"] } $n .. $n + $batch - 1;
        $n += $batch;
        my $mine = "mine $n";
        if ($n % 1000 == 0) {
            $mine .= substr $large, length $mine;
            push @messages, ["large$n", $large];
        }
        $publish->(@messages, ['watched', $mine]);
        push @sent, $mine;
        my $event = $sse->event;
        push @bad, substr "after $n: " . ($event ? "$event->{event} "
            . "$event->{data}" : 'nothing'), 0, 80
            if !$event || $event->{event} ne 'message'
               || $event->{data} ne $mine;

        # those of just now are there, whatever rolled by
        for my $i ($n - 1, $n - 20, $first) {
            my $r = poll($hub, "c$i");
            $polls++;
            push @bad, "c$i after $n: " . $r->status . ' ' . $r->body
                if $r->status != 200 || $r->body ne "data $i";
            $etag{"c$i"} = $r->header('ETag');
        }
        if ($n % 1000 == 0) {
            my $r = poll($hub, "large$n");
            push @bad, "large$n: " . $r->status if $r->body ne $large;
            my $memory = hub($hub)->{memory};
            push @bad, "used $memory->{used} of $memory->{size}"
                if $memory->{used} > $memory->{size};
        }
    }
    is(scalar @bad, 0, "$hub: $channels channels, a stream gets each of its "
        . 'messages once, those just published are there')
        or diag(join "\n", @bad > 10 ? @bad[0 .. 9] : @bad);
    $sse->none(0.2);

    my $status = hub($hub);
    is($status->{messages}{dropped}, 0, "$hub: none is dropped");
    cmp_ok($status->{evicted}, '>', $channels / 2,
        "$hub: most channels had to go");
    cmp_ok($status->{memory}{used}, '<=', $status->{memory}{size},
        "$hub: memory is what was given");
    is($status->{channels} + $status->{evicted},
       $channels + 1 + $channels / 1000,
        "$hub: each is there or evicted") if $hub eq 'mem';

    # an ETag of what is forgotten is worth nothing

    my (%answers, @lies);
    for my $channel (map { "c$_" } 0, 30, 49, 50 .. 52, 999, 1000, 5000) {
        my $etag = $etag{$channel} // next;
        my $r = poll($hub, $channel, $etag);
        $answers{$r->status}++;
        push @lies, "$channel: " . $r->status . " $etag"
            if $r->status !~ /^20[04]$/ || $r->header('ETag') eq $etag;
        $publish->([$channel, "new"]);
        wait_for { poll($hub, $channel)->body eq 'new' } 5, 'new';
        $r = poll($hub, $channel, $etag);
        push @lies, "$channel, new: " . $r->status if $r->status != 200;
    }
    is("@lies", '', "$hub: an old ETag is never current");
    ok($answers{204}, "$hub: nothing is known of what is forgotten");
    my $r = poll($hub, 'watched', poll($hub, 'watched')->header('ETag'));
    is($r->status, 304, "$hub: that of a channel in use is");

    # a byte more than fits

    $r = post($ngx, '/publish?channel=watched', $large . 'x');
    is($r->status, 413, 'too large: 413') if $hub eq 'mem';
    if ($hub eq 'app') {
        $redis->publish('watched', $large . 'x');
        my $event = $sse->event;
        is($event->{event}, 'rt.gap', 'too large: a gap');
        like($event->{data}, qr/"message too large"/, 'that says so');
        wait_ok { $ngx->log(qr/\[warn\].*"watched" dropped: larger/) } 5,
            'and the log does';
        is(hub($hub)->{messages}{dropped}, 1, 'one is dropped');
        isnt(poll($hub, 'watched')->status, 304, 'nothing is current');
    } else {
        $sse->none(0.2);
        is(poll($hub, 'watched', poll($hub, 'watched')->header('ETag'))
            ->status, 304, 'what was not taken changes nothing');
    }
    $publish->(['watched', 'after']);
    $sse->expect('after');
    $sse->close;
}

# More channels with streams than there is room for: one takes the place of
# another, of which this worker has streams, too.  Who has lost its channel is
# told so, and heard again when there is room.

subtest 'a channel that is watched gives way to another one' => sub {
    my $n = 1500;
    my $ngx = RT::Nginx->new(workers => 1,
        http => 'rt_hub app { zone 640k; message_max 1k; history 1; }',
        server => <<'END');
        location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
        location ~ ^/to/(?<channel>.+)$ { rt_publish app $channel; }
        location /status { rt_status json; }
END
    my @sse;
    for (1 .. $n) {
        push @sse, RT::SSE->new($ngx, "/rt/c$_", wait_head => 0);
        RT::SSE::pump(0, @sse) if $_ % 50 == 0;
    }
    wait_for { RT::SSE::pump(0.02, @sse); !grep { !$_->{head} } @sse } 10,
        'all are open';
    my $hub = decode_json(get($ngx, '/status')->body)->{hubs}[0];
    cmp_ok($hub->{evicted}, '>', 0, "$hub->{evicted} had to give way");
    my ($k, @deaf) = 0;
    wait_ok {
        post($ngx, '/to/c' . (1 + $k++ % $n), 'x') for 1 .. 30;
        RT::SSE::pump(0.001, @sse);
        @deaf = grep { !@{$_->{events}} } @sse;
        !@deaf;
    } 20, 'each of the streams got a message or was told' or
        diag(scalar(@deaf), ' are deaf');
    $_->close for @sse;
};

done_testing;
