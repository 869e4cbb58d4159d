# rt_status: the contract's JSON, summed over workers, through crashes and
# reloads.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use JSON::PP qw(decode_json);

sub status ($ngx, $path = '/status') {
    my $r = get($ngx, $path);
    my $status = eval { decode_json($r->body) }
        // die "not JSON: $@\n" . $r->body;
    $status->{hub} = { map { $_->{name} => $_ } @{$status->{hubs}} };
    return $status;
}

sub hub ($ngx, $name = 'app') { return status($ngx)->{hub}{$name} }

# the shape of a value: keys, and what kind the leaves are of
sub shape ($value) {
    return { map { $_ => shape($value->{$_}) } keys %$value }
        if ref $value eq 'HASH';
    return [map { shape($_) } @$value] if ref $value;
    return 'null' if !defined $value;
    return JSON::PP->new->allow_nonref->encode($value) =~ /^"/
        ? 'string' : 'number';
}

sub n (@names) { return map { $_ => 'number' } @names }

my %shape = (
    name     => 'string',
    source   => 'string',
    memory   => { n(qw(size used)) },
    n(qw(channels evicted)),
    messages => { n(qw(in bytes_in dropped)) },
    polls    => { n(qw(hit miss)) },
    gate     => { n(qw(hit miss bypass)) },
    streams  => {
        sse       => { n(qw(open opened delivered slow_closed)) },
        websocket => { n(qw(open opened delivered received slow_closed)) },
    },
    busiest  => [],
);

my $redis = RT::Redis->new;
my $paths = <<'END';
    location = /status { rt_status; }
    location = /json { rt_status json; }
    location = /denied { deny all; rt_status; }
    location ~ ^/rt/(?<channel>.*)$ { rt_subscribe app $channel; }
    location ~ ^/local/(?<channel>.*)$ { rt_subscribe local $channel; }
    location ~ ^/pub/(?<channel>.*)$ { rt_publish local $channel; }
END
my $ngx = RT::Nginx->new(
    workers => 3,
    redis   => $redis,
    http    => <<'END',
    rt_hub app {
        zone 16m; redis %%REDIS%%; redis_reconnect 10ms 200ms; message_max 10k;
    }
    rt_hub local { zone 8m; }
END
    server  => $paths,
);

# the answer

my $r = get($ngx, '/status');
is($r->status, 200, 'GET');
is($r->header('Content-Type'), 'application/json', 'JSON');
is($r->header('Cache-Control'), 'no-cache', 'not to be kept');
is($r->header('Content-Length'), length $r->body, 'with its length');
my $head = head($ngx, '/status');
is($head->status, 200, 'HEAD');
is($head->header('Content-Type'), 'application/json', 'HEAD: JSON');
like($head->header('Content-Length'), qr/^\d+$/, 'HEAD: a length');
is($head->body, '', 'HEAD: no body');
for my $method (qw(POST PUT DELETE)) {
    $r = request($ngx, $method => '/status', body => 'x' x 100_000);
    is($r->status, 405, "$method: 405");
    is($r->header('Allow'), 'GET, HEAD', "$method: what is allowed");
}
for my $accept ('text/html', 'text/plain', 'application/json', '*/*') {
    is(get($ngx, '/status', headers => [Accept => $accept])
        ->header('Content-Type'), 'application/json',
        "Accept: $accept: JSON in this version");
}
ok(status($ngx, '/json'), 'rt_status json');
is(get($ngx, '/denied')->status, 403, 'access rules come first');

my $all = status($ngx);
like($all->{version}, qr/^\d+\.\d+\.\d+$/, 'our version');
my $nginx = `${\RT::Nginx::binary()} -v 2>&1`;
like($nginx, qr/\Q$all->{nginx}\E/, "nginx' version");
is_deeply([map { $_->{name} } @{$all->{hubs}}], ['app', 'local'],
    'the hubs, as they are defined');

# an embedded hub

is_deeply(shape($all->{hub}{local}),
    { %shape, feed => { state => 'string', worker => 'null',
        server => 'null', n(qw(since reconnects gaps lag_ms)) } },
    'the shape of an embedded hub');
my $local = $all->{hub}{local};
is($local->{source}, 'embedded', 'its source');
is($local->{feed}{state}, 'embedded', 'its feed');
is($local->{memory}{size}, 8 << 20, 'the size of its zone');
cmp_ok($local->{memory}{used}, '>', 0, 'something is used');
cmp_ok($local->{memory}{used}, '<', 2 << 20, 'but not much');

post($ngx, "/pub/c$_", 'x' x 1000) for 1 .. 30;
my $after = hub($ngx, 'local');
is($after->{messages}{in}, 30, 'messages are counted');
is($after->{messages}{bytes_in}, 30_000, 'and their bytes');
is($after->{channels}, 30, 'and channels');
cmp_ok($after->{memory}{used} - $local->{memory}{used}, '>', 30_000,
    'memory is used');

my %etag = map { $_ => get($ngx, "/local/c$_")->header('ETag') } 1 .. 30;
get($ngx, "/local/c$_", headers => ['If-None-Match' => $etag{$_}])
    for 1 .. 20;
is_deeply(hub($ngx, 'local')->{polls}, { hit => 20, miss => 30 },
    'polls of all workers are counted');

my @streams = map { RT::SSE->new($ngx, "/local/s") } 1 .. 9;
post($ngx, '/pub/s', "m$_") for 1 .. 4;
for my $sse (@streams) { $sse->wait(4) }
my $sse = hub($ngx, 'local')->{streams}{sse};
is($sse->{open}, 9, 'open streams');
is($sse->{opened}, 9, 'opened streams');
is($sse->{delivered}, 36, 'what was delivered');
is($sse->{slow_closed}, 0, 'nobody was slow');
$_->close for splice @streams, 0, 4;
wait_ok { hub($ngx, 'local')->{streams}{sse}{open} == 5 } 5,
    'five are left';
is(hub($ngx, 'local')->{streams}{sse}{opened}, 9, 'opened stays');

# a worker is killed

my @victims = ($ngx->workers)[0, 1];
$ngx->kill_worker(KILL => $_) for @victims;
wait_for { my %now = map { $_ => 1 } $ngx->workers;
           keys %now == 3 && !grep { $now{$_} } @victims } 5, 'respawned';
my $left = grep { !$_->ended(0.2) } @streams;
wait_ok { hub($ngx, 'local')->{streams}{sse}{open} == $left } 5,
    "the streams of the killed are not shown, $left are left";
$after = hub($ngx, 'local');
is($after->{streams}{sse}{opened}, 9, 'opened survives');
is($after->{streams}{sse}{delivered}, 36, 'delivered survives');
is_deeply($after->{polls}, { hit => 20, miss => 30 }, 'polls survive');
is($after->{messages}{in}, 34, 'messages survive');

# a reload

$ngx->reload;
wait_ok { hub($ngx, 'local')->{streams}{sse}{open} <= $left } 5, 'reloaded';
$after = hub($ngx, 'local');
is($after->{streams}{sse}{opened}, 9, 'opened survives a reload');
is_deeply($after->{polls}, { hit => 20, miss => 30 },
    'polls survive a reload');
is($after->{channels}, 31, 'channels survive a reload');
$_->close for @streams;
wait_ok { hub($ngx, 'local')->{streams}{sse}{open} == 0 } 10,
    'the last stream is gone';

# Redis

wait_for { hub($ngx)->{feed}{state} eq 'live' } 5, 'live';
my $app = hub($ngx);
is_deeply(shape($app), { %shape, feed => { state => 'string',
    worker => 'number', server => 'string',
    n(qw(since reconnects gaps lag_ms)) } }, 'the shape of a Redis hub');
is($app->{source}, 'pubsub', 'its source');
is($app->{memory}{size}, 16 << 20, 'the size of its zone');
is($app->{feed}{server}, '127.0.0.1:' . $redis->port, 'the server');
# until the feed is handed over it is one that quits
my $feeder;
wait_ok { $feeder = hub($ngx)->{feed}{worker};
    grep { $_ == $feeder } $ngx->workers } 5, 'the feeder is a worker';
my $since = $app->{feed}{since};
wait_ok { hub($ngx)->{feed}{since} >= $since + 0.2 } 5,
    'the time in this state passes';
cmp_ok(hub($ngx)->{feed}{since}, '<', 60, 'in seconds');
wait_ok { hub($ngx)->{feed}{lag_ms} > 0 } 5, 'the lag is measured';
cmp_ok(hub($ngx)->{feed}{lag_ms}, '<', 1000, 'in milliseconds');

my $stream = RT::SSE->new($ngx, '/rt/a');
$redis->wait_sub('a');
$redis->publish(a => 'x' x 100) for 1 .. 5;
$redis->publish(a => 'x' x 20_000);
$redis->publish(a => 'end');
$stream->wait(7);
$app = hub($ngx);
is($app->{messages}{in}, 6, 'what Redis sent is counted');
is($app->{messages}{bytes_in}, 503, 'and its bytes');
is($app->{messages}{dropped}, 1, 'what was too large is counted');
is($app->{channels}, 1, 'one channel');

my $reconnects = $app->{feed}{reconnects};
$redis->kill9;
wait_ok { hub($ngx)->{feed}{state} =~ /^(?:down|connecting)$/ } 5,
    'Redis is gone: not live';
$redis->start;
wait_ok { hub($ngx)->{feed}{state} eq 'live' } 10, 'live again';
$app = hub($ngx);
is($app->{feed}{reconnects}, $reconnects + 1, 'one more reconnect');
wait_ok { hub($ngx)->{feed}{gaps} >= 1 } 5, 'and a gap';
cmp_ok($app->{feed}{since}, '<', 10, 'the time in this state began anew');

$ngx->kill_worker(KILL => $feeder = hub($ngx)->{feed}{worker});
wait_ok { my $feed = hub($ngx)->{feed};
          $feed->{state} eq 'live' && $feed->{worker}
          && $feed->{worker} != $feeder } 10,
    'the feeder is killed: another one';
$stream->close;

# without a hub

$ngx = RT::Nginx->new(server => 'location = /status { rt_status; }');
is_deeply(status($ngx)->{hubs}, [], 'no hub');

done_testing;
