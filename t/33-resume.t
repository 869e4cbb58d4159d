# A cursor is exact, or there is a gap: never a silent loss, never a repeat.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
    rt_hub mem { zone 8m; history 4; message_max 1000; }
    rt_hub big { zone 128m; history 4; message_max 8m; }
    rt_hub app { zone 8m; history 4; message_max 1000; redis %%REDIS%%;
                 redis_reconnect 50ms 100ms; }
END
    server => <<'END', allow => [qr/\[error\].*Redis|no feed|rt_hub/]);
    location ~ ^/mem/(?<channel>[\w,]+)$ { rt_subscribe mem $channel; }
    location ~ ^/big/(?<channel>[\w,]+)$ {
        rt_subscribe big $channel; rt_start history; rt_buffer 4k;
        sendfile off;
    }
    location = /big { client_max_body_size 10m;
        rt_publish big $arg_channel; }
    location ~ ^/app/(?<channel>[\w,]+)$ { rt_subscribe app $channel; }
    location = /publish { rt_publish mem $arg_channel; }
END

sub stream ($path, $id = undef) {
    return RT::SSE->new($ngx, $path, headers => [
        Accept => 'text/event-stream', $id ? ('Last-Event-ID' => $id) : ()]);
}

sub placed ($sse) {
    wait_for { RT::SSE::pump(0.1, $sse); $sse->last_id ne '' } 5,
        'a place';
    return $sse->last_id;
}

sub publish ($channel, @data) {
    return map { post($ngx, "/publish?channel=$channel", $_)->body
                     =~ /"id":"([^"]+)"/ ? $1 : undef } @data;
}

sub told (@events) {
    return join ' ', map {
        $_->{event} eq 'rt.gap'
            ? 'gap:' . ($_->{data} =~ /"reason":"([^"]*)"/ ? $1 : '?')
            : $_->{data} } @events;
}

# the place a stream begins with is a cursor like any other

my $cold = stream('/mem/cold');
my $place = placed($cold);
$cold->close;
publish(cold => 'a', 'b');
is(told(stream('/mem/cold', $place)->wait(2)), 'a b',
    'from the first id of a stream on a new channel');

# history 4

my @id = publish(h => 0 .. 9);
is(told(stream('/mem/h', $id[5])->wait(4)), '6 7 8 9',
    'the oldest cursor that is whole');
my $late = stream('/mem/h', $id[4]);
my @got = $late->wait(5);
is(told(@got), 'gap:expired 6 7 8 9', 'one older: a gap, then what is left');
like($got[0]{data}, qr/"channel":"h"/, 'naming the channel');
is(told(stream('/mem/h', $got[0]{id})->wait(4)), '6 7 8 9',
    "the gap's id goes on without another");

my $end = stream('/mem/h', $id[9]);
publish(h => 'x');
is(told($end->wait(1)), 'x', 'from the newest: only what comes then');

# several channels: one place for all

my ($p) = publish(p => 'p0');
publish(q => 'q0');
publish(p => 'p1');
is(told(stream('/mem/p,q', $p)->wait(2)), 'q0 p1', 'in the order of all');

# a message that is too large, and the feed

my $live = stream('/app/f');
placed($live);
wait_for { $redis->cmd(PUBSUB => 'NUMSUB', 'f')->[1] == 1 } 5, 'heard';
$redis->publish(f => 'one');
is(told($live->wait(1)), 'one', 'live');
my $heard = $live->last_id;
$redis->publish(f => 'x' x 1001);
is(told($live->wait(1)), 'gap:message too large', 'too large is told');
my $large = stream('/app/f', $heard);
is(told($large->wait(1)), 'gap:message too large', 'to who resumes, too');
$large->close;
$redis->publish(f => 'two');
is(told($live->wait(1)), 'two', 'and the stream goes on');
my $before = $live->last_id;
my $quiet = stream('/app/quiet');
my $silent = placed($quiet);
my $etag = get($ngx, '/app/f')->header('etag');
is(get($ngx, '/app/f', headers => ['If-None-Match' => $etag])->status, 304,
    'current');

$redis->cmd(CLIENT => 'KILL', 'TYPE', 'pubsub');
is(told($live->wait(1, 10)), 'gap:feed', 'a lost feed is told');
is(get($ngx, '/app/f', headers => ['If-None-Match' => $etag])->status, 200,
    'no 304 for what may have changed meanwhile');
is(told(stream('/app/f', $before)->wait(1)), 'gap:feed',
    'a cursor of before the loss gets the gap too');
is(told($quiet->wait(1, 5)), 'gap:feed', 'where nothing ever came, too');
is(told(stream('/app/quiet', $silent)->wait(1)), 'gap:feed',
    'and to its cursor');
$redis->publish(f => 'three');
is(told($live->wait(1)), 'three', 'and is live');
$redis->cmd(CLIENT => 'KILL', 'TYPE', 'pubsub');
is(told($live->wait(1, 10)), 'gap:feed', 'lost again');
$redis->publish(f => 'four');
is(told($live->wait(1)), 'four', 'and live again');
my $twice = stream('/app/f', $before);
is(told($twice->wait(4)), 'gap:feed three gap:feed four',
    'who missed both losses is told of each, where it was');
$twice->close;
stream('/app/f', $live->last_id)->none(0.2);

# who begins with what is known from before a loss

$redis->cmd(CLIENT => 'KILL', 'TYPE', 'pubsub');
is(told($live->wait(1, 10)), 'gap:feed', 'lost once more');
my $new = stream('/app/f');
is(told($new->wait(2)), 'four gap:feed',
    'the latest message is from before a loss: that is told');
$redis->publish(f => 'five');
is(told($new->wait(1)), 'five', 'and it goes on');
$new->none(0.2);
my $newer = stream('/app/f');
is(told($newer->wait(1)), 'five', 'the latest is of after it: no gap');
$newer->none(0.2);

# who begins with the history and does not take all of it at once

sub big ($n) {
    is(post($ngx, '/big?channel=b', $n . 'x' x ($n == 1 ? 5_000_000 : 10))->status, 202, 'big');
}
big($_) for 1 .. 2;
my $lazy = RT::SSE->new($ngx, '/big/b', rcvbuf => 4096, keep_raw => 0);
big($_) for 3 .. 7;
@got = $lazy->wait(6, 20);
is(join(' ', map { $_->{event} eq 'rt.gap' ? 'gap' : substr $_->{data}, 0, 1 }
    @got), '1 gap 4 5 6 7', 'what is dropped meanwhile is told');
$lazy->close;

# Two cuts one after the other: a message lost before the first, one stored
# between them, and the second not confirmed yet.

subtest 'a client that comes back while its channel is denied' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, http => <<'END',
        rt_hub app { redis %%REDIS%%; redis_reconnect 10ms 20ms; }
END
        server => <<'END');
        location = /new { rt_subscribe app c; rt_start history; }
        location / { rt_subscribe app c; }
END
    my $sse = RT::SSE->new($ngx, '/');
    $redis->wait_sub('c');
    $redis->publish(c => 'before');
    $sse->expect('before');
    my $last = $sse->last_id;
    $sse->close;

    my (undef, $heard) = $redis->pipeline(
        [CLIENT => KILL => TYPE => 'pubsub'],
        [PUBLISH => c => 'lost']);
    is($heard, 0, 'one message is lost');
    $redis->wait_sub('c');
    wait_for { my $etag = get($ngx, '/')->header('ETag');
        $etag && get($ngx, '/', headers => ['If-None-Match' => $etag])->status
            == 304 } 5, 'certain again';
    $redis->publish(c => 'between');
    wait_for { get($ngx, '/')->body eq 'between' } 5, 'one comes after it';

    # whoever is subscribed is thrown out, and then denied
    $redis->cmd(ACL => SETUSER => 'default', 'resetchannels');
    $ngx->wait_log(qr/channel "c" denied/);
    my $told = sub ($sse) {
        return join ' ', map { $_->{event} eq 'rt.gap' ? 'gap' : $_->{data} }
            $sse->wait(2);
    };
    is($told->(RT::SSE->new($ngx, '/', last => $last)), 'gap between',
        'the gap is told before what came after it');
    $sse = RT::SSE->new($ngx, '/new');
    is(join(' ', map { $_->{event} eq 'rt.gap' ? 'gap' : $_->{data} }
            $sse->wait(3)), 'before gap between', 'and to one that begins');
    $redis->cmd(ACL => SETUSER => 'default', 'allchannels');
};

done_testing;
