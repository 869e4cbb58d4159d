# rt_gate: 304 from the zone in front of whatever answers, and an ETag of ours
# on what it answers.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use RT::App;
use RT::App::Cgi;

my $redis = RT::Redis->new;
my $app = RT::App->new;
my %cgi = map { $_ => RT::free_port() } qw(fastcgi scgi uwsgi);
for my $name (keys %cgi) {
    RT::spawn(sub { RT::App::Cgi::serve($name, $cgi{$name}) });
    RT::poll_until(sub { eval { RT::HTTP::connect_to($cgi{$name}) } }, 5)
        // die "$name does not start\n";
}
my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
    vars => { APP => '127.0.0.1:' . $app->port,
              map { uc $_ => "127.0.0.1:$cgi{$_}" } keys %cgi }, http => <<'END',
    rt_hub app { zone 8m; redis %%REDIS%%; }
    rt_hub st  { zone 8m; redis %%REDIS%%; source stream; prefix s:; }
    rt_hub mem { zone 8m; }
    map $http_x_ok $allowed { "" 401; default 204; }
    log_format gate '$uri $status $rt_transport $rt_result $rt_channel '
                    '$rt_version';
    access_log %%DIR%%/logs/gate.log gate;
END
    server => <<'END');
    location /gate/ {
        rt_gate app $arg_c;
        proxy_pass http://%%APP%%;
        add_header X-Result $rt_result;
        add_header X-Version $rt_version;
        add_header X-Transport $rt_transport;
        add_header X-Channel $rt_channel;
    }
    location /payload/ { rt_gate app $arg_c by=payload;
                         proxy_pass http://%%APP%%; }
    location /stream/  { rt_gate st $arg_c; proxy_pass http://%%APP%%; }
    location /mem/     { rt_gate mem $arg_c; proxy_pass http://%%APP%%; }
    location /two/     { rt_gate app "o:$arg_o" u:$arg_u;
                         proxy_pass http://%%APP%%; }
    location /two-pay/ { rt_gate app "o:$arg_o" u:$arg_u by=payload;
                         proxy_pass http://%%APP%%; }
    location /me       { rt_gate app "user:$cookie_uid";
                         proxy_pass http://%%APP%%; }
    location = /my     { rt_subscribe app "user:$cookie_uid"; }
    location /denied/  { rt_gate app $arg_c; deny all; }
    location /auth/    { rt_gate app $arg_c; auth_request /allowed;
                         proxy_pass http://%%APP%%; }
    location = /allowed { internal; rt_gate app a;
                          proxy_pass http://%%APP%%/?status=$allowed; }
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location = /publish { rt_publish app $arg_channel; }
    location = /mem-publish { rt_publish mem $arg_channel; }
    location = /status { rt_status json; }

    listen 127.0.0.1:%%PORT1%% http2;

    # whatever answers
    location /fastcgi/ { rt_gate mem files; fastcgi_pass %%FASTCGI%%; }
    location /scgi/    { rt_gate mem files; scgi_pass %%SCGI%%; }
    location /uwsgi/   { rt_gate mem files; uwsgi_pass %%UWSGI%%; }
    location /static/ { rt_gate mem files; root %%DIR%%/html; }
    location /try/ { rt_gate mem files; root %%DIR%%/html;
                     try_files $uri @app; }
    location @app { proxy_pass http://%%APP%%; }
    location /try-uri/ { rt_gate mem files; root %%DIR%%/html;
                         try_files $uri /plain?$args; }
    location /plain { proxy_pass http://%%APP%%; }
    location /rewritten/ { rewrite ^ /static/a.txt last; }
    location /lost/ { rt_gate mem files; root %%DIR%%/html;
                      error_page 404 = @app; }
    location /page/ { rt_gate mem files; root %%DIR%%/html;
                      error_page 404 =200 /static/page.txt; }
    location /missing/ { rt_gate mem files; root %%DIR%%/html;
                         error_page 404 /static/page.txt; }
    location /backup/ { rt_gate mem files; error_page 502 = @app;
                        proxy_pass http://127.0.0.1:1; }
    location /accel/ { rt_gate mem files; proxy_pass http://%%APP%%; }
    location /inner/ { internal; rt_gate mem other;
                       alias %%DIR%%/html/static/; }
    location /to-poll/ { rt_gate mem files; try_files /nothing /poll; }
    location = /poll { rt_subscribe mem files; }
    location /if/ {
        rt_gate mem files;
        if ($arg_x) { add_header X-If 1; }
        proxy_pass http://%%APP%%;
    }
    location /limit/ {
        rt_gate mem files;
        limit_except POST { allow all; }
        proxy_pass http://%%APP%%;
    }
    location /outer/ {
        rt_gate mem files;
        proxy_pass http://%%APP%%;
        location /outer/inner/ { proxy_pass http://%%APP%%; }
    }
    location /return/ { rt_gate mem files; return 200 text; }
    location /gzip/ { rt_gate mem files; root %%DIR%%/html; gzip on;
                      gzip_min_length 1; gzip_types text/plain; }
END

my $html = $ngx->dir . '/html';
mkdir "$html/$_" for qw(static try try-uri lost gzip);
RT::spew("$html/$_/a.txt", "a file\n") for qw(static try try-uri gzip);
RT::spew("$html/static/page.txt", "the page\n");

sub inm ($etag) { return (headers => ['If-None-Match' => $etag]) }

sub gate ($name = undef) {
    my $hubs = decode_json(get($ngx, '/status')->body)->{hubs};
    return (grep { $_->{name} eq ($name // 'app') } @$hubs)[0]{gate};
}

# the answer with an ETag of ours, once the channel's version is known
sub stamped ($path, %opt) {
    my $r;
    wait_for {
        $r = get($ngx, $path, %opt);
        ($r->header('ETag') // '"app-') !~ /^"app-/
    } 5, "$path has an ETag of ours";
    return $r;
}

sub is_304 ($path, $etag, $name) {
    my $before = $app->count;
    my $r = get($ngx, $path, inm($etag));
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is_deeply([$r->status, $r->body, $r->header('ETag'), $app->count],
        [304, '', $etag =~ s{^W/}{}r, $before], $name);
    return $r;
}

sub is_200 ($path, $etag, $state, $name) {
    my $r = get($ngx, $path, inm($etag));
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is_deeply([$r->status, $r->body], [200, "state $state\n"], $name);
    return $r;
}

# before the subscription is confirmed, and after

my $r = get($ngx, '/gate/x?c=a');
is_deeply([$r->status, $r->header('ETag'), $r->header('X-Result')],
    [200, '"app-0"', 'bypass'], 'a cold channel: the upstream, as it is');
$r = stamped('/gate/x?c=a');
my $etag = $r->header('ETag');
like($etag, qr/^"[\w.,-]{1,64}"$/, 'then an ETag is ours');
is_deeply([map { $r->header("X-$_") } qw(Result Version Transport Channel)],
    ['miss', $etag =~ tr/"//dr, 'gate', 'a'], 'and the variables are told');
is(() = $r->header('ETag') =~ /"/g, 2, 'one ETag');
$r = is_304('/gate/x?c=a', $etag, 'before any message: 304, nobody is asked');
is($r->header('X-Result'), 'hit', 'a hit');
like($r->header('RT-Poll-Interval'), qr/^[1-9]\d*$/, 'told when to ask again');
is($r->header('RT-Advice'), 'poll', 'and how');
is_304('/gate/x?c=a', "W/$etag", 'the weak form');
is_304('/gate/other?c=a', $etag, 'another URL of the channel');
is(get($ngx, '/gate/x?c=a', inm("\"b\", $etag"))->status, 304, 'a list');
is(get($ngx, '/gate/x?c=a', inm('*'))->status, 200,
    'whether there is anything is the upstream\'s to say');
is(head($ngx, '/gate/x?c=a', inm($etag))->status, 304, 'HEAD');
$r = head($ngx, '/gate/x?c=a');
is_deeply([$r->status, $r->header('ETag')], [200, $etag], 'HEAD without it');

$r = get($ngx, '/gate/x?c=a');
like($r->header('RT-Poll-Interval'), qr/^[1-9]\d*$/, 'a 200 is told, too');
is($r->header('RT-Advice'), 'poll', 'both');

# a publish

$app->set(1);
$redis->publish(a => 'changed');
wait_for { get($ngx, '/gate/x?c=a', inm($etag))->status == 200 } 5, 'changed';
$r = is_200('/gate/x?c=a', $etag, 1, 'a publish: the upstream is asked');
isnt($r->header('ETag'), $etag, 'the ETag is another');
is_304('/gate/x?c=a', $r->header('ETag'), 'which holds');
$etag = $r->header('ETag');
$redis->publish(a => 'changed');
wait_ok { get($ngx, '/gate/x?c=a', inm($etag))->status == 200 } 5,
    'the same payload again is a change';

# the token is the one of streams

$etag = stamped('/gate/x?c=a')->header('ETag');
my $sse = RT::SSE->new($ngx, '/rt/a', last => $etag =~ tr/"//dr);
$redis->publish(a => 'news');
$sse->expect('news');
is(scalar(grep { $_->{event} eq 'rt.gap' } $sse->wait(1, 0.1)), 0,
    'a stream goes on from it without a gap');

# methods, and who may

$etag = stamped('/gate/x?c=a')->header('ETag');
for my $method (qw(POST PUT DELETE OPTIONS)) {
    $r = request($ngx, $method => '/gate/x?c=a', body => 'x', inm($etag));
    is_deeply([$r->status, $r->header('ETag')], [200, '"app-1"'],
        "$method goes through");
}
is(get($ngx, '/denied/x?c=a', inm($etag))->status, 403, '403 before 304');
is(get($ngx, '/auth/x?c=a', inm($etag))->status, 401, '401 before 304');
is(get($ngx, '/auth/x?c=a', headers => ['If-None-Match' => $etag,
    'X-Ok' => 1])->status, 304, 'allowed: 304');

# bad names

my $bypass = gate()->{bypass};
for my $c ('', 'x' x 256) {
    $r = get($ngx, "/gate/x?c=$c", inm('*'));
    is_deeply([$r->status, $r->header('ETag'), $r->header('X-Version')],
        [200, '"app-1"', undef], 'a bad name goes through');
}
is(gate()->{bypass}, $bypass + 2, 'and is counted');

# by=payload

$redis->publish(p => 'one');
get($ngx, '/payload/x?c=p');
$redis->wait_sub('p');
is(get($ngx, '/payload/x?c=p')->header('ETag'), '"app-1"',
    'by=payload: no payload, no version');
$redis->publish(p => 'one');
my $one = stamped('/payload/x?c=p')->header('ETag');
is_304('/payload/x?c=p', $one, 'the payload is the version');
$redis->publish(p => 'two');
wait_for { get($ngx, '/payload/x?c=p', inm($one))->status == 200 } 5, 'two';
my $two = stamped('/payload/x?c=p')->header('ETag');
isnt($two, $one, 'another payload is another version');
$redis->publish(p => 'one');
wait_for { get($ngx, '/payload/x?c=p', inm($two))->status == 200 } 5, 'one';
is(stamped('/payload/x?c=p')->header('ETag'), $one,
    'the first payload is the first version again');
is(get($ngx, '/payload/x?c=p', inm("\"x\",$one"))->status, 304, 'and matches');

# of several channels the version is that of the set

my $set = stamped('/two/x?o=1&u=1')->header('ETag');
is_304('/two/x?o=1&u=1', $set, 'two channels');
for my $channel (qw(o:1 u:1)) {
    $redis->publish($channel => 'x');
    wait_ok { get($ngx, '/two/x?o=1&u=1', inm($set))->status == 200 } 5,
        "$channel changes the set";
    $set = stamped('/two/x?o=1&u=1')->header('ETag');
}
stamped('/two/x?o=1&u=2');
$redis->publish('o:1' => 'y');
wait_for { get($ngx, '/two/x?o=1&u=1', inm($set))->status == 200 } 5, 'y';
$set = stamped('/two/x?o=1&u=1')->header('ETag');
is(get($ngx, '/two/x?o=1&u=2', inm($set))->status, 200,
    'the same newest change, another set: no match');
$redis->publish('o:1' => 'z');
$redis->publish('u:1' => 'z');
wait_for { get($ngx, '/rt/u:1')->body eq 'z' } 5, 'both are known';
my $group = stamped('/two-pay/x?o=1&u=1')->header('ETag');
is_304('/two-pay/x?o=1&u=1', $group, 'two payloads');
$redis->publish('o:1' => 'other');
$redis->publish('u:1' => 'z');
wait_ok { get($ngx, '/two-pay/x?o=1&u=1', inm($group))->status == 200 } 5,
    'both count, whichever is the newest';
isnt(get($ngx, '/two-pay/x?o=1&u=2')->header('ETag'), $group,
    'one of them not known: no version');

# whose channel follows from who asks, not from the URL

for my $uid (7, 8) {
    stamped('/me', headers => [Cookie => "uid=$uid"]);
    $redis->publish("user:$uid", "of $uid");
}
wait_for { get($ngx, '/rt/user:8')->body eq 'of 8' } 5, 'of 8';
my $seven = stamped('/me', headers => [Cookie => 'uid=7'])->header('ETag');
my $eight = stamped('/me', headers => [Cookie => 'uid=8'])->header('ETag');
for my $case ([7, $eight], [8, $seven]) {
    is(get($ngx, '/me', headers => [Cookie => "uid=$case->[0]",
        'If-None-Match' => $case->[1]])->status, 200,
        "the version of another user is not that of $case->[0]");
}

my $poll = get($ngx, '/rt/user:8')->header('ETag');
is(get($ngx, '/my', headers => [Cookie => 'uid=8', 'If-None-Match' => $poll])
    ->status, 304, 'a poll of the user\'s own channel');
is(get($ngx, '/my', headers => [Cookie => 'uid=7', 'If-None-Match' => $poll])
    ->body, 'of 7', 'and of another user\'s, who has an older one');
is(get($ngx, '/my', headers => [Cookie => 'uid=9', 'If-None-Match' => $poll])
    ->status, 204, 'or none');

# streams: the entry's id

get($ngx, '/stream/x?c=a');
$r = stamped('/stream/x?c=a');
is_304('/stream/x?c=a', $r->header('ETag'), 'a stream that is not there');
my $id = $redis->cmd(XADD => 's:a', '*', data => 'x');
wait_for { get($ngx, '/stream/x?c=a')->header('ETag') eq "\"$id\"" } 5, 'id';
is_304('/stream/x?c=a', "\"$id\"", 'the id of its entry');

# an embedded hub knows at once

$etag = get($ngx, '/mem/x?c=a')->header('ETag');
unlike($etag, qr/app/, 'embedded: at once');
is_304('/mem/x?c=a', $etag, 'and holds');
post($ngx, '/mem-publish?channel=a', 'x');
is(get($ngx, '/mem/x?c=a', inm($etag))->status, 200, 'until the publish');

# whatever answers

my %answers = (
    '/static/a.txt' => "a file\n",
    '/try/a.txt' => "a file\n",
    '/try/b.txt' => "state 1\n",
    '/try-uri/a.txt' => "a file\n",
    '/try-uri/b.txt' => "state 1\n",
    '/rewritten/x' => "a file\n",
    '/lost/b.txt' => "state 1\n",
    '/backup/x' => "state 1\n",
    '/if/x' => "state 1\n",
    '/if/x?x=1' => "state 1\n",
    '/limit/x' => "state 1\n",
    '/return/x' => 'text',
    (map { +"/$_/x" => "$_ 1\n" } keys %cgi),
);
# an error is logged where there is no backend
$ngx->allow(qr/connect\(\) failed/);
for my $path (sort keys %answers) {
    $r = get($ngx, $path);
    is_deeply([$r->status, $r->body], [200, $answers{$path}], "$path: 200");
    if ($path eq '/return/x') {
        # "return" answers before any gate
        next;
    }
    unlike($r->header('ETag') // '"app-', qr/^"(?:app-|[0-9a-f]{8}-)/,
        "$path: our ETag");
    is_304($path, $r->header('ETag'), "$path: 304");
}
post($ngx, '/mem-publish?channel=files', 'x');
for my $path (sort keys %answers) {
    next if $path eq '/return/x';
    my $new = get($ngx, $path);
    is($new->status, 200, "$path: changed");
}
$r = get($ngx, '/accel/x?accel=/inner/a.txt');
is($r->body, "a file\n", 'X-Accel-Redirect');
is_304('/accel/x?accel=/inner/a.txt', $r->header('ETag'),
    'has the version that was read before the application was asked');
$r = get($ngx, '/page/b.txt');
is_deeply([$r->status, $r->body], [200, "the page\n"], 'error_page =200');
my $file = get($ngx, '/static/page.txt')->header('ETag');
isnt($r->header('ETag') // '', $file, 'is not what the version is of');
$r = get($ngx, '/missing/b.txt');
is_deeply([$r->status, $r->body], [404, "the page\n"], 'error_page');
isnt($r->header('ETag') // '', $file, 'neither');
$r = get($ngx, '/to-poll/x');
is($r->status, 200, 'a poll behind a gate');
is(get($ngx, '/to-poll/x', inm(get($ngx, '/poll')->header('ETag')))->status,
    304, 'has the ETag of the poll');
$r = get($ngx, '/outer/inner/x');
is($r->header('ETag'), '"app-1"', 'a location inside has no gate of its own');
for my $status (404, 500, 302, 204) {
    $r = get($ngx, "/gate/x?c=a&status=$status");
    is_deeply([$r->status, $r->header('ETag')], [$status, '"app-1"'],
        "the upstream's $status is its own");
}
$r = get($ngx, '/gate/x?c=a', inm('"app-1"'));
is_deeply([$r->status, $r->header('ETag')], [304, '"app-1"'],
    'and its 304 of its own ETag');
$r = get($ngx, '/gzip/a.txt', headers => ['Accept-Encoding' => 'gzip']);
like($r->header('ETag'), qr{^W/"}, 'gzip makes it weak');
is(get($ngx, '/gzip/a.txt', inm($r->header('ETag')))->status, 304,
    'which matches');

# RFC 9110, 13 and 14

$etag = stamped('/static/a.txt')->header('ETag');
$r = get($ngx, '/static/a.txt', headers => [Range => 'bytes=0-1']);
is($r->status, 206, 'a range');
isnt($r->header('ETag'), $etag, 'has the ETag of its bytes');
$r = get($ngx, '/static/a.txt', headers => [Range => 'bytes=0-1',
    'If-Range' => $etag]);
is_deeply([$r->status, $r->body], [200, "a file\n"],
    'If-Range with a version: all of it');
is(get($ngx, '/static/a.txt', headers => [Range => 'bytes=0-1',
    'If-None-Match' => $etag])->status, 304, 'If-None-Match comes first');
my $modified = get($ngx, '/static/a.txt')->header('Last-Modified');
is(get($ngx, '/static/a.txt', headers => ['If-Modified-Since' => $modified])
    ->status, 304, 'If-Modified-Since alone is the file\'s');
post($ngx, '/mem-publish?channel=files', 'x');
is(get($ngx, '/static/a.txt', headers => ['If-Modified-Since' => $modified,
    'If-None-Match' => $etag])->status, 200,
    'If-None-Match decides where both are');
$etag = get($ngx, '/static/a.txt')->header('ETag');
is(get($ngx, '/static/a.txt', headers => ['If-Match' => $etag])->status, 200,
    'If-Match with the version');
is(get($ngx, '/static/a.txt', headers => ['If-Match' => '"other"'])->status,
    412, 'and with another');
is(get($ngx, '/static/a.txt', headers => ['If-None-Match' => 'junk'])->status,
    200, 'a malformed list matches nothing');

# held until a change

$etag = stamped('/gate/x?c=w')->header('ETag');
sub waiting ($path, $etag, $wait) {
    my $c = RT::HTTP->new($ngx);
    $c->send(GET => $path, headers => ['If-None-Match' => $etag,
        Prefer => "wait=$wait"]);
    return $c;
}
my $misses = gate()->{miss};
my $c = waiting('/gate/x?c=w', $etag, 20);
my $before = $app->count;
$redis->wait_sub('w');
stays { $app->count == $before } 0.2, 'held';
$app->set(2);
$redis->publish(w => 'x');
$r = $c->read;
is_deeply([$r->status, $r->body, $r->header('Preference-Applied')],
    [200, "state 2\n", 'wait=20'], 'let through by the publish');
isnt($r->header('ETag'), $etag, 'with the new version');
is(gate()->{miss}, $misses + 1, 'looked at once');
$etag = $r->header('ETag');
$c->send(GET => '/gate/x?c=w', headers => ['If-None-Match' => $etag,
    Prefer => 'wait=1']);
$r = $c->read;
is_deeply([$r->status, $r->header('ETag'), $r->header('Preference-Applied')],
    [304, $etag, 'wait=1'], 'or 304 when the time is over');
cmp_ok($r->elapsed, '>=', 0.9, 'not before');
$before = $app->count;
$c->send(GET => '/gate/x?c=w', headers => ['If-None-Match' => '"x"',
    Prefer => 'wait=20']);
is($c->read->status, 200, 'what does not match is not held');
$c = waiting('/gate/x?c=w', $etag, 20);
my $open = waiting('/gate/x?c=w', $etag, 20);
$c->reset;
$redis->publish(w => 'y');
is($open->read->status, 200, 'a client that left harms nobody');
for my $name (qw(stream payload)) {
    $redis->publish(wp => 'x');
    my $path = "/$name/x?c=wp";
    my $have = $name eq 'stream' ? stamped($path)->header('ETag') : do {
        get($ngx, $path); $redis->wait_sub('wp'); $redis->publish(wp => 'x');
        stamped($path)->header('ETag') };
    $c = waiting($path, $have, 20);
    $name eq 'stream' ? $redis->cmd(XADD => 's:wp', '*', data => 'x')
                      : $redis->publish(wp => 'another');
    $r = $c->read;
    is($r->status, 200, "held and let through, $name");
}

# HTTP/2

sub h2 ($etag, @more) {
    my (undef, $out) = curl('--http2-prior-knowledge', '-i', '-H',
        "If-None-Match: $etag", @more,
        'http://127.0.0.1:' . $ngx->port(1) . '/gate/x?c=w');
    return $out;
}
$etag = stamped('/gate/x?c=w')->header('ETag');
like(h2($etag), qr{^HTTP/2 304 .*^etag: \Q$etag\E\r}ms, 'HTTP/2: 304');
like(h2('"x"'), qr{^HTTP/2 200 .*^etag: \Q$etag\E\r}ms, 'HTTP/2: 200');
like(h2($etag, '-H', 'Prefer: wait=1'),
    qr{^HTTP/2 304 .*^preference-applied: wait=1\r}ms, 'HTTP/2: held');
my $file_of_h2 = dir() . '/h2';
my $held = RT::spawn(['curl', '-s', '--http2-prior-knowledge', '-m', 20, '-H',
    "If-None-Match: $etag", '-H', 'Prefer: wait=20', '-o', $file_of_h2,
    'http://127.0.0.1:' . $ngx->port(1) . '/gate/x?c=w']);
wait_for {
    $redis->publish(w => 'x');
    !RT::running($held);
} 10, 'let through';
is(slurp($file_of_h2), "state 2\n", 'held and let through');

# what is counted and logged

my $was = gate('mem');
get($ngx, '/mem/x?c=a', inm(get($ngx, '/mem/x?c=a')->header('ETag')));
my $now = gate('mem');
is_deeply([map { $now->{$_} - $was->{$_} } qw(hit miss bypass)], [1, 1, 0],
    'the status counts them');
wait_ok { slurp($ngx->dir . '/logs/gate.log')
    =~ m{^/mem/x 304 gate hit a \S+$}m } 5, 'the log, too';
wait_ok { slurp($ngx->dir . '/logs/gate.log')
    =~ m{^/try/b.txt 200 gate miss files \S+$}m } 5, 'also behind try_files';

done_testing;
