# The gate with proxy_cache, by the snippets of conf/: 200 pollers in front of
# a counting application, and the whole behind a cache that stands for a CDN.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use RT::App;
use RT::Soak::Net;
use Time::HiRes qw(time);

my ($pollers, $seconds, $changes) = (200, 20, 10);

my $redis = RT::Redis->new;
my $app = RT::App->new;
my $dir = RT::dir();

# a snippet, with this application and cache
sub snippet ($name) {
    my $text = slurp(root() . "/conf/$name.conf");
    $text =~ s/127\.0\.0\.1:8000/'127.0.0.1:' . $app->port/ge
        if $name ne 'cache';
    $text =~ s{/var/cache/nginx/rt}{%%DIR%%/cache} if $name eq 'cache';
    return $text;
}

my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
    http => "rt_hub app { zone 8m; redis %%REDIS%%; }\n" . snippet('cache'),
    vars => { APP => $app->port }, server => snippet('gate') . snippet('gate-cache') . snippet('cdn') . <<'END');
    location /plain-cache/ {
        rt_gate app "state:$arg_id";
        proxy_cache rt; proxy_cache_key $request_uri;
        proxy_cache_valid 200 1h;
        proxy_pass http://127.0.0.1:%%APP%%;
        add_header X-Cache $upstream_cache_status;
    }
    location /probe/ { rt_gate app "$arg_c"; root %%DIR%%/html; }
    location = /status { rt_status json; }
END

mkdir $ngx->dir . '/html/probe';
RT::spew($ngx->dir . '/html/probe/a', "a\n");

sub gate () {
    return decode_json(get($ngx, '/status')->body)->{hubs}[0]{gate};
}

# the version of a channel without asking the application
sub version ($channel) {
    my $r;
    wait_for {
        $r = get($ngx, "/probe/a?c=$channel");
        $r->header('ETag') !~ /^"[0-9a-f]+-[0-9a-f]+"$/
    } 5, 'a version';
    return $r->header('ETag');
}

# publishes, and is back when the node knows
sub publish ($channel) {
    my $before = version($channel);
    $redis->publish($channel => 'changed');
    wait_for { version($channel) ne $before } 5, 'the publish is known';
}

# the plain gate of the snippet

version('orders:7');
my $r = get($ngx, '/orders/?id=7');
is(get($ngx, '/orders/?id=7', headers => ['If-None-Match' =>
    $r->header('ETag')])->status, 304, 'conf/gate.conf');

# what was stored for any version has none

version('state:p');
get($ngx, '/plain-cache/?id=p');
$r = get($ngx, '/plain-cache/?id=p');
is_deeply([$r->header('X-Cache'), $r->header('ETag')], ['HIT', '"app-0"'],
    'a cache without the version in its key: no version is told');

# 200 pollers: what each got, and whether a 304 was ever wrong

my $loop = RT::Soak::Net->new;
my ($known, $n200, $n304, @wrong) = (0, 0, 0);
my @clients;
$app->reset;

sub poll ($client) {
    return if $client->{done};
    my $must = $known;      # what was known before this request was sent
    my $inm = defined $client->{etag}
        ? "If-None-Match: $client->{etag}\r\n" : '';
    $client->{request}->ask("GET $client->{path} HTTP/1.1\r\nHost: x\r\n"
        . "$inm\r\n", sub ($status, $headers, $body, $now) {
        if ($status == 200) {
            $n200++;
            ($client->{state}) = $body =~ /^state (\d+)$/m;
            $client->{etag} = $headers->{etag};
            push @wrong, "200 of $client->{state}, $must is known"
                if $client->{state} < $must;
        } elsif ($status == 304) {
            $n304++;
            push @wrong, "304 for $client->{state}, $must is known"
                if $client->{state} < $must;
        } else {
            push @wrong, "status $status";
        }
        $loop->at($now + 0.4 + 0.4 * rand, sub ($t) { poll($client) });
    });
}

sub viewers ($n, $port, $path) {
    @clients = map { { path => $path,
        request => RT::Soak::Request->new($loop, $port) } } 1 .. $n;
    for my $client (@clients) {
        $loop->at(time + rand, sub ($t) { poll($client) });
    }
}

sub run ($until) { $loop->turn(0.05) while time < $until }

sub settle ($state, $what) {
    my $end = time + RT::scale(10);
    $loop->turn(0.05) while time < $end
        && grep { ($_->{state} // -1) != $state } @clients;
    is(scalar(grep { ($_->{state} // -1) != $state } @clients), 0, $what);
    $_->{done} = 1 for @clients;
    $loop->turn(0.05) while time < $end
        && grep { $_->{request}->busy } @clients;
    $_->{request}->drop for @clients;
}

version('state:1');
my $was = gate();
viewers($pollers, $ngx->port, '/state/?id=1');
for my $change (1 .. $changes) {
    run(time + $seconds / $changes);
    $app->set($change);
    publish('state:1');
    $known = $change;
}
run(time + 1);
my ($busy) = @{decode_json(get($ngx, '/status')->body)->{hubs}[0]{busiest}};
is($busy->{channel}, 'state:1', 'the status has the channel first');
cmp_ok(abs($busy->{viewers} - $pollers), '<=', $pollers / 5,
    "and about its viewers: $busy->{viewers}");
settle($changes, "$pollers pollers, $changes changes: all have the last state");
is_deeply([splice @wrong, 0, 10], [], 'no answer was ever older than what was known');
cmp_ok($app->count, '<=', $changes + 1,
    'one request to the application for each change, and the first');
cmp_ok($n304, '>', $n200, "304 is the rule: $n304, and $n200 of 200");
is(gate()->{bypass}, $was->{bypass}, 'nobody passed by');
diag(sprintf '%d answers: %d of 304, %d of 200; the application was asked %d '
    . 'times', $n304 + $n200, $n304, $n200, $app->count);

# Redis away: nothing that is stored is served

$app->set(11);
$redis->kill9;
wait_ok { get($ngx, '/state/?id=1')->body eq "state 11\n" } 5,
    'Redis away: the application is asked, not the cache';
$app->set(12);
is(get($ngx, '/state/?id=1')->body, "state 12\n", 'each time');
$redis->start;
version('state:1');
is(get($ngx, '/state/?id=1')->body, "state 12\n", 'and once it is back');

# a CDN: another nginx with nothing of ours

my $cdn = RT::Nginx->new(workers => 1, vars => { NODE => $ngx->port },
    http => 'proxy_cache_path %%DIR%%/edge keys_zone=edge:1m;',
    server => <<'END');
    location / {
        proxy_cache             edge;
        proxy_cache_key         $request_uri;
        proxy_cache_revalidate  on;
        proxy_cache_lock        on;
        proxy_cache_use_stale   updating;
        proxy_http_version      1.1;
        proxy_set_header        Host $host;
        proxy_pass              http://127.0.0.1:%%NODE%%;
        add_header              X-Edge $upstream_cache_status;
    }
END

version('feed:1');
$app->set(0);
$app->reset;
$known = 0;
($n200, $n304) = (0, 0);
$was = gate();
my $begun = time;
viewers(100, $cdn->port, '/feed/?id=1');
# what an edge has may be a second old, and what is asked just then, too
for my $change (1 .. 3) {
    run(time + 2);
    $app->set($change);
    publish('feed:1');
    run(time + 2);
    $known = $change;
}
settle(3, 'a CDN: 100 viewers have the last state');
my $lasted = time - $begun;
my $now = gate();
is_deeply([splice @wrong, 0, 10], [], 'which is at most two seconds old');
cmp_ok($app->count, '<=', 4, 'the application is asked once for each change');
my ($hit, $miss) = map { $now->{$_} - $was->{$_} } qw(hit miss);
# the probes of publish() are asked of the gate, too, and miss
cmp_ok($hit, '>=', 3, "the edge's revalidations are 304 here: $hit");
cmp_ok($hit, '<=', $lasted + 1, sprintf 'one in a second, of %d polls in %.0f s',
    $n200 + $n304, $lasted);

done_testing;
