# `source stream`: what Redis has not kept is a gap, always; what it has kept
# never is.  And keys that can't be read, and entries too large.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use Time::HiRes qw(time);

my $redis = RT::Redis->new;
my @nginx = (workers => 1, http => <<'END',
    rt_hub app { zone 8m; redis %%REDIS%%; source stream; message_max 64k;
                 redis_reconnect 50ms 200ms; redis_timeout 1s 2s; }
    rt_retry 50ms;
END
    server => <<'END');
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location = /status { rt_status json; }
END
my $ngx = RT::Nginx->new(redis => $redis, @nginx);

sub hub { return decode_json(get($ngx, '/status')->body)->{hubs}[0] }
sub add ($key, @fields) { return $redis->cmd(XADD => $key, '*', @fields) }

# followed: a poll is certain of what it has
sub current ($key) {
    my $etag = get($ngx, "/rt/$key")->header('ETag') // return 0;
    return get($ngx, "/rt/$key", headers => ['If-None-Match' => $etag])->status
        == 304;
}

# a stream of one client that stands at its newest entry
my $n = 0;
sub begin ($key, @add) {
    my $sse = RT::SSE->new($ngx, "/rt/$key");
    if (@add) { $redis->cmd(XADD => $key, @add) }
    else      { add($key, data => 'first') }
    my $e = $sse->event // die "nothing of $key\n";
    wait_for { current($key) } 5, "$key is followed";
    return $sse;
}

sub gap_then ($sse, $data, $text, $seconds = 5) {
    my $e = $sse->event($seconds);
    is($e && $e->{event}, 'rt.gap', "$text: a gap") or diag explain $e;
    my $gap = $e && $e->{event} eq 'rt.gap' ? decode_json($e->{data}) : {};
    my @got;
    for (@$data) {
        my $e = $sse->event // last;
        push @got, $e->{event} eq 'message' ? $e->{data} : $e->{event};
    }
    is("@got", "@$data", "$text: then what there is");
    return $gap->{reason};
}

sub goes_on ($sse, $key, $text) {
    add($key, data => "$key goes on");
    my $e = $sse->event;
    is($e && "$e->{event} $e->{data}", "message $key goes on",
        "$text: then no more");
}

my ($feeder) = $ngx->workers;
sub behind_its_back ($code) {
    RT::freeze($feeder);
    $code->();
    kill CONT => $feeder;
}

# trimmed unread

my $sse = begin('trim');
behind_its_back(sub { add('trim', data => "m$_") for 1 .. 10;
                      $redis->cmd(XTRIM => trim => MAXLEN => 3); });
gap_then($sse, [qw(m8 m9 m10)], 'XTRIM');
goes_on($sse, 'trim', 'XTRIM');

$sse = begin('maxlen');
behind_its_back(sub {
    $redis->cmd(XADD => 'maxlen', MAXLEN => 1, '*', data => "m$_") for 1, 2;
});
gap_then($sse, ['m2'], 'MAXLEN 1');
goes_on($sse, 'maxlen', 'MAXLEN 1');

$sse = begin('many');
behind_its_back(sub {
    $redis->pipeline(map { [XADD => 'many', '*', data => "m$_"] } 1 .. 1000);
    $redis->cmd(XTRIM => many => MAXLEN => 500);
});
gap_then($sse, [map { "m$_" } 501 .. 1000], 'XTRIM, more than one reply');
goes_on($sse, 'many', 'XTRIM, more than one reply');

$sse = begin('gone');
behind_its_back(sub { add('gone', data => 'm1');
                      $redis->cmd(XTRIM => gone => MAXLEN => 0); });
gap_then($sse, [], 'XTRIM to nothing');
goes_on($sse, 'gone', 'XTRIM to nothing');

# the place deleted, and as many of those after it as are left before it: the
# sum is as if nothing were missing

add('sum', data => "old$_") for 1, 2;
$sse = RT::SSE->new($ngx, '/rt/sum');
wait_for { current('sum') } 5, 'sum is followed';
$sse->expect('old2');
my $place = add('sum', data => 'place');
$sse->expect('place');
behind_its_back(sub {
    # at once, so that no reader is told of what is gone
    $redis->cmd('MULTI');
    $redis->cmd(XADD => 'sum', "9999999999999-$_", data => "m$_")
        for 1 .. 202;
    $redis->cmd(XDEL => 'sum', $place, map { "9999999999999-$_" } 1, 2);
    $redis->cmd('EXEC');
});
gap_then($sse, [map { "m$_" } 3 .. 202], 'XDEL that adds up');

# trimmed after it was read

$sse = begin('keep');
behind_its_back(sub { $redis->cmd(XTRIM => keep => MAXLEN => 0);
                      add('keep', data => "m$_") for 1 .. 3; });
$sse->expect(qw(m1 m2 m3));

behind_its_back(sub {
    $redis->cmd(XTRIM => keep => MAXLEN => 0);
    $redis->pipeline(map { [XADD => 'keep', '*', data => "m$_"] } 1 .. 1000);
});
$sse->expect(map { "m$_" } 1 .. 1000);

my ($last) = @{$redis->cmd(XREVRANGE => 'keep', '+', '-', COUNT => 1)};
behind_its_back(sub { $redis->cmd(XDEL => keep => $last->[0]);
                      add('keep', data => 'after XDEL'); });
$sse->expect('after XDEL');

$sse = begin('one', MAXLEN => 1, '*', data => 'first');
for my $i (1 .. 300) {
    $redis->cmd(XADD => one => MAXLEN => 1, '*', data => "m$i");
    my $e = $sse->event;
    next if $e && $e->{event} eq 'message' && $e->{data} eq "m$i";
    fail("MAXLEN 1, steadily read: m$i");
    last;
}
my $gaps = hub()->{feed}{gaps};
$redis->cmd(CLIENT => KILL => TYPE => 'normal', SKIPME => 'yes');
$redis->cmd(XADD => one => MAXLEN => 1, '*', data => 'again');
$sse->expect('again');
is(hub()->{feed}{gaps}, $gaps, 'MAXLEN 1: no gap, also after a reconnect');

# told by XREAD and not there any more, in a life that counts as the old one

$sse = begin('life', '1-1', data => 'first');
behind_its_back(sub { $redis->cmd('DEL', 'life');
    $redis->cmd(XADD => life => '2-1', data => 'unread');
    $redis->cmd(XADD => life => MAXLEN => 1, '3-1', data => 'm2'); });
gap_then($sse, ['m2'], 'DEL and entries that add up');

# another life of the key

$sse = begin('del', '5-1', data => 'first');
$redis->cmd(DEL => 'del');
gap_then($sse, [], 'DEL', 12);
is(get($ngx, '/rt/del')->status, 204, 'nothing is known');
goes_on($sse, 'del', 'DEL');

$sse = begin('lower', '5-1', data => 'first');
$redis->cmd(DEL => 'lower');
$redis->cmd(XADD => lower => "1-$_", data => "low$_") for 1 .. 3;
gap_then($sse, ['low3'], 'DEL and a lower id', 12);
$redis->cmd(XADD => lower => '1-4', data => 'low4');
$sse->expect('low4');
is(get($ngx, '/rt/lower')->header('ETag'), '"1-4"', 'a poll, too');

$sse = begin('higher');
behind_its_back(sub { $redis->cmd(DEL => 'higher');
                      add('higher', data => $_) for qw(h1 h2); });
gap_then($sse, [qw(h1 h2)], 'DEL and higher ids');
goes_on($sse, 'higher', 'DEL and higher ids');

my @flushed = map { begin($_) } qw(f1 f2 f3);
$redis->cmd('FLUSHALL');
gap_then($flushed[$_ - 1], [], "FLUSHALL $_", 12) for 1 .. 3;
goes_on($flushed[$_ - 1], "f$_", "FLUSHALL $_") for 1 .. 3;

# something else by that name

$sse = begin('type');
my $etag = get($ngx, '/rt/type')->header('ETag');
$redis->cmd(SET => type => 'a string');
wait_ok { get($ngx, '/rt/type', headers => ['If-None-Match' => $etag])->status
          == 200 } 8, 'SET: a poll is not certain any more';
wait_ok { $ngx->log(qr/stream "type" can't be read: Redis says "WRONGTYPE/) }
    2, 'and the log has a line';
$redis->cmd(DEL => 'type');
add('type', data => 'back');
gap_then($sse, ['back'], 'a stream again', 12);
goes_on($sse, 'type', 'a stream again');

# a cold one, and a reader's others

$redis->cmd(SET => cold => 'a string');
my $cold = RT::SSE->new($ngx, '/rt/cold');
wait_for { $ngx->log(qr/stream "cold" can't be read/) } 5, 'not a stream';
goes_on($sse, 'type', 'beside one that is none');
$redis->cmd(DEL => 'cold');
wait_for { get($ngx, '/rt/cold')->header('ETag') } 8, 'looked at again';
goes_on($cold, 'cold', 'of a key that was none');

# entries too large

$sse = begin('poison');
behind_its_back(sub {
    add('poison', data => 'before');
    add('poison', map { ("f$_", 'v') } 1 .. 5_000);
    add('poison', data => 'between');
    add('poison', data => 'x' x 1_000_000);
    add('poison', map { ("f$_", 'x' x 50_000) } 1 .. 100);
    add('poison', data => 'x' x 65_537);
    add('poison', data => 'x' x 65_536);
});
$sse->expect('before');
is(gap_then($sse, ['between'], '5,000 fields'), 'message too large',
    'and why');
for my $what ('1 MB', '5 MB in fields', 'one byte') {
    is(gap_then($sse, [], $what), 'message too large', 'and why');
}
is(length $sse->event->{data}, 65_536, 'the largest that may be');
goes_on($sse, 'poison', 'after all of them');

add('cold2', data => 'x' x 1_000_000);
$cold = RT::SSE->new($ngx, '/rt/cold2');
wait_for { get($ngx, '/rt/cold2')->header('ETag') } 5, 'followed';
add('cold2', data => 'fine');
my $e;
do { $e = $cold->event } while $e && $e->{event} eq 'rt.gap';
is($e && $e->{data}, 'fine', 'a cold one that ends with one too large');

$ngx->stop;

# ACL

my $acl = RT::Redis->new(password => undef);
$acl->cmd(ACL => SETUSER => 'rt', 'on', '>pw', '~a*', '+xread', '+xrange',
    '+xrevrange', '+xinfo|stream', '+multi', '+exec', '+ping');
my $url = 'redis://rt:pw@127.0.0.1:' . $acl->port;
my @acl = @nginx;
$acl[3] =~ s/%%REDIS%%/$url/;
$ngx = RT::Nginx->new(@acl);
$redis = $acl;

my $denied = RT::SSE->new($ngx, '/rt/b1');
wait_ok { $ngx->log(qr/stream "b1" can't be read: Redis says "NOPERM/) } 5,
    'a key that is denied';
$sse = begin('a1');
my $start = time;
my $second = begin('a2');
cmp_ok(time - $start, '<', RT::scale(3),
    'without CLIENT a newcomer waits for a second');
goes_on($sse, 'a1', 'without CLIENT');
$acl->cmd(ACL => SETUSER => 'rt', '~b*');
wait_for { current('b1') || get($ngx, '/rt/b1')->header('ETag') } 10,
    'allowed now';
goes_on($denied, 'b1', 'a key that was denied');

$acl->cmd(ACL => SETUSER => 'rt', '-xread');
$redis->cmd(CLIENT => KILL => TYPE => 'normal', SKIPME => 'yes');
$ngx->wait_log(qr/Redis .*: Redis says "NOPERM .*xread/, 5);
$acl->cmd(ACL => SETUSER => 'rt', '+xread');
wait_for { hub()->{feed}{state} eq 'live' && current('a1') } 8, 'live again';
goes_on($sse, 'a1', 'after a command was denied');
$ngx->stop;

# a Redis that is there, but reads nothing

my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
    $conn->err('LOADING Redis is loading the dataset in memory') });
@acl = @nginx;
$url = $fake->url;
$acl[3] =~ s/%%REDIS%%/$url/;
$ngx = RT::Nginx->new(@acl);
$ngx->wait_log(qr/no feed from Redis .*: Redis says "LOADING/);
is(get($ngx, '/rt/a')->status, 503, 'loading: a poll is told');
stays { hub()->{feed}{state} ne 'live' } 1, 'and the feed is not live';
is($ngx->log(qr/rt_hub "app"/), 1, 'one line');

done_testing;
