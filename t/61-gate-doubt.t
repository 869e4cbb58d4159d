# rt_gate: what is published while the application still answers, and all that
# makes a version doubtful.  Never a 304 for what may have changed.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::App;

my $redis = RT::Redis->new;
my $app = RT::App->new;

my %conf = (redis => $redis, workers => 2,
    vars => { APP => '127.0.0.1:' . $app->port }, http => <<'END',
    rt_hub app { zone 8m; redis %%REDIS%%; redis_reconnect 50ms 200ms; }
    rt_hub old { zone 8m; redis %%REDIS%%; redis_reconnect 50ms 200ms;
                 stale 2s; prefix old:; }
    rt_hub st  { zone 8m; redis %%REDIS%%; redis_reconnect 50ms 200ms;
                 source stream; prefix s:; }
    rt_hub mem { zone 1m; }
END
    server => <<'END');
    location /gate/    { rt_gate app $arg_c; proxy_pass http://%%APP%%; }
    location /old/     { rt_gate old $arg_c; proxy_pass http://%%APP%%; }
    location /stream/  { rt_gate st $arg_c; proxy_pass http://%%APP%%; }
    location /mem/     { rt_gate mem $arg_c; proxy_pass http://%%APP%%; }
    location /payload/ { rt_gate app $arg_c by=payload;
                         proxy_pass http://%%APP%%; }
    location /mem-pay/ { rt_gate mem $arg_c by=payload;
                         proxy_pass http://%%APP%%; }
    location /gate-file/   { rt_gate app $arg_c; alias %%DIR%%/html/; }
    location /stream-file/ { rt_gate st $arg_c; alias %%DIR%%/html/; }
    location /mem-file/    { rt_gate mem $arg_c; alias %%DIR%%/html/; }
    location /push/    { rt_publish mem $arg_c; }
    location = /status { rt_status json; }
END

my $ngx = RT::Nginx->new(%conf);
RT::spew($ngx->dir . '/html/a', "a\n");

sub ask ($path, $etag = undef, $node = $ngx) {
    return get($node, $path,
        headers => [defined $etag ? ('If-None-Match' => $etag) : ()]);
}

sub ours ($r) { return ($r->header('ETag') // '"app-') !~ /^"app-/ }

# the answer with a version, once there is one
sub stamped ($path, $node = $ngx) {
    my $r;
    wait_for { ours($r = ask($path, undef, $node)) } 10, "$path: a version";
    return $r->header('ETag');
}

# the version without asking the application
sub probe ($path) { return ask($path =~ s{/\?}{/a?}r)->header('ETag') }

# a publish while the upstream still answers an older state

for my $case (['gate', sub { $redis->publish(a => 'x') }],
              ['stream', sub { $redis->cmd(XADD => 's:a', '*', data => 'x') }],
              ['mem', sub { post($ngx, '/push/?c=a', 'x') }])
{
    my ($name, $publish) = @$case;
    my $path = "/$name/?c=a";
    $app->set(1);
    my $old = stamped($path);
    $app->hold;
    my $slow = RT::HTTP->new($ngx);
    $slow->send(GET => $path);
    wait_for { $app->held == 1 } 5, 'the upstream is asked';
    $app->set(2);
    $publish->();
    wait_for { probe("/$name-file/?c=a") ne $old } 5, 'the publish is known';
    $app->release;
    my $r = $slow->read;
    is_deeply([$r->body, $r->header('ETag')], ["state 1\n", $old],
        "$name: the older state has the version from before it was asked for");
    $r = ask($path, $old);
    is_deeply([$r->status, $r->body], [200, "state 2\n"], 'which is over');
    is(ask($path, $r->header('ETag'))->status, 304, 'the new one is not');
}

# equal payloads: each publish is a change

my $etag = stamped('/gate/?c=equal');
for my $n (1 .. 3) {
    $redis->publish(equal => 'same');
    wait_ok { ask('/gate/?c=equal', $etag)->status == 200 } 5,
        "publish $n of the same payload";
    $etag = stamped('/gate/?c=equal');
    is(ask('/gate/?c=equal', $etag)->status, 304, 'is one version');
}

# a reload is no doubt

$etag = stamped('/gate/?c=a');
$ngx->reload;
wait_ok { ask('/gate/?c=a', $etag)->status == 304 } 5,
    'the version is the same after a reload';

# Redis killed

my $stale = stamped('/old/?c=a');
my $id = stamped('/stream/?c=a');
$redis->publish(a => 'payload');
my $payload = do { ask('/payload/?c=a'); stamped('/payload/?c=a') };
$etag = stamped('/gate/?c=a');
$redis->kill9;
wait_ok { my $r = ask('/gate/?c=a', $etag);
          $r->status == 200 && !ours($r) } 5,
    'Redis killed: the application, without a version';
ok(!ours(ask('/payload/?c=a', $payload)), 'also by=payload');
is(ask('/old/?c=a', $stale)->status, 304, 'stale 2s: still 304');
wait_ok { my $r = ask('/old/?c=a', $stale);
          $r->status == 200 && !ours($r) } 5, 'then the application';
$app->set(3);
is(ask('/gate/?c=a', $etag)->body, "state 3\n", 'which says what is');
$redis->start;
my $new = stamped('/gate/?c=a');
isnt($new, $etag, 'Redis is back: another version');
for my $case ([gate => $etag], [old => $stale], [payload => $payload]) {
    my $path = "/$case->[0]/?c=a";
    is(ask($path, $case->[1])->status, 200, "$path: the old one is over");
}
stamped('/old/?c=a');
is(ask('/old/?c=a', $stale)->status, 200, 'also when there is a new one');
# the stream was not kept, without AOF: what it was is over
stamped('/stream/?c=a');
isnt(ask('/stream/?c=a', $id)->status, 304, 'a stream that is gone');

# the feeder killed, and published before the next one listens

$etag = stamped('/gate/?c=a');
sub feeder () {
    return get($ngx, '/status')->body
        =~ /"name":"app".*?"state":"live","worker":(\d+)/ ? $1 : 0;
}
my $feeder = feeder();
$ngx->kill_worker(KILL => $feeder);
$redis->publish(a => 'unheard');
wait_ok { feeder() && feeder() != $feeder && ours(ask('/gate/?c=a')) } 10,
    'another feeder';
is(ask('/gate/?c=a', $etag)->status, 200, 'a feeder killed: the old is over');

# evicted, and made again

$etag = stamped('/mem/?c=e');
post($ngx, '/push/?c=e', 'text');
my $of_payload = stamped('/mem-pay/?c=e');
$etag = stamped('/mem/?c=e');
is(ask('/mem/?c=e', $etag)->status, 304, 'a channel in a zone of 1m');
for my $i (1 .. 200) {
    post($ngx, "/push/?c=other$i", 'x' x 8000);
}
my $status = get($ngx, '/status')->body;
my ($evicted) = $status =~ /"name":"mem".*?"evicted":(\d+)/;
cmp_ok($evicted, '>', 0, 'is evicted');
is(ask('/mem/?c=e', $etag)->status, 200, 'and its version with it');
ok(!ours(ask('/mem-pay/?c=e', $of_payload)), 'by=payload: its payload, too');

# two nodes

my $two = RT::Nginx->new(%conf);
$redis->publish(a => 'both');
stamped('/gate/?c=a', $two);
stamped('/stream/?c=a', $two);
ask('/payload/?c=n', undef, $_) for $ngx, $two;
$redis->wait_sub('n', 2);
wait_for {
    $redis->publish(n => 'same');
    ours(ask('/payload/?c=n')) && ours(ask('/payload/?c=n', undef, $two));
} 5, 'both have the payload';
is(ask('/payload/?c=n', undef, $two)->header('ETag'),
    ask('/payload/?c=n')->header('ETag'), 'by=payload: one version on two nodes');
is(ask('/payload/?c=n', stamped('/payload/?c=n'), $two)->status, 304,
    'and it holds');
is(ask('/gate/?c=a', stamped('/gate/?c=a'), $two)->status, 200,
    'by=publish: that of another node is none');
$id = $redis->cmd(XADD => 's:a', '*', data => 'x');
for my $node ($ngx, $two) {
    wait_ok { (ask('/stream/?c=a', undef, $node)->header('ETag') // '')
        eq "\"$id\"" } 5, 'a stream: the id';
    is(ask('/stream/?c=a', "\"$id\"", $node)->status, 304, 'on each node');
}

# the zone resized, and nginx restarted

$etag = stamped('/gate/?c=a');
(my $http_conf = $conf{http}) =~ s/rt_hub app \{ zone 8m/rt_hub app { zone 9m/;
$ngx->reload(http => $http_conf);
wait_ok { ours(ask('/gate/?c=a')) } 5, 'a zone of another size';
is(ask('/gate/?c=a', $etag)->status, 200, 'knows no older version');
$etag = stamped('/gate/?c=a');
my $mem = stamped('/mem/?c=a');
$ngx->stop;
$ngx->start;
is(ask('/mem/?c=a', $mem)->status, 200, 'nginx restarted: none is known');
stamped('/gate/?c=a');
is(ask('/gate/?c=a', $etag)->status, 200, 'of Redis neither');

done_testing;
