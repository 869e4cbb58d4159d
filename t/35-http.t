# HTTP itself: versions, connections, conditions, negotiation, proxies.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use Time::HiRes qw(time);

need(qw(curl openssl));

my $redis = RT::Redis->new;
my $certs = RT::dir();
system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
    . "-keyout $certs/key -out $certs/cert 2>/dev/null") == 0
    or die "openssl\n";

my $locations = <<'END';
    location ~ ^/rt/(?<channel>[\w:.,-]+)$ { rt_subscribe mem $channel; }
    location ~ ^/app/(?<channel>[\w:.,-]+)$ { rt_subscribe app $channel; }
    location ~ ^/poll/(?<channel>[\w:.,-]+)$ {
        rt_subscribe mem $channel; rt_transport poll;
    }
    location ~ ^/sse/(?<channel>[\w:.,-]+)$ {
        rt_subscribe mem $channel; rt_transport sse;
    }
    location ~ ^/short/(?<channel>[\w:.,-]+)$ {
        rt_subscribe mem $channel; rt_lifetime 100ms;
    }
    location = /publish { rt_publish mem $arg_channel; }
END

my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
    vars => { CERTS => $certs, L => $locations }, http => <<'END',
    rt_hub mem { zone 8m; }
    rt_hub app { zone 8m; redis %%REDIS%%; }
    large_client_header_buffers 4 16k;
    rt_poll_interval 2s 2s;     # the same each time
    server { listen 127.0.0.1:%%PORT1%% http2; %%L%% }
    server {
        listen 127.0.0.1:%%PORT2%% ssl http2;
        ssl_certificate %%CERTS%%/cert; ssl_certificate_key %%CERTS%%/key;
        %%L%%
    }
    server {
        listen 127.0.0.1:%%PORT3%%;
        location / { proxy_pass http://127.0.0.1:%%PORT%%; }
        location /11/ {
            proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_pass http://127.0.0.1:%%PORT%%/;
        }
    }
    server {
        listen 127.0.0.1:%%PORT4%%;
        gzip on; gzip_min_length 0; gzip_proxied any;
        gzip_types text/event-stream text/plain;
        %%L%%
    }
END
    server => $locations);

my @sse = (headers => [Accept => 'text/event-stream']);

sub publish ($channel, $data) {
    my $r = post($ngx, "/publish?channel=$channel", $data);
    die "publish: " . $r->status . "\n" if $r->status != 202;
    return $r->body =~ /"id":"([^"]+)"/ ? $1 : undef;
}

sub etag ($channel) { return get($ngx, "/rt/$channel")->header('ETag') }

publish(a => 'one');
my $etag = etag('a');
my @hit = (headers => ['If-None-Match' => $etag]);

# the head of an answer, whatever comes then
sub head_of ($path, @headers) {
    my $c = RT::HTTP->new($ngx);
    $c->send(GET => $path, headers => [@headers]);
    my $h = $c->read_head(time + RT::scale(5));
    $c->close;
    return $h;
}

# the rest of the tests are of these kinds; each connection is its own

sub kind ($head) {
    return $head->{status} if $head->{status} != 200;
    return $head->{headers}{'content-type'} eq 'text/event-stream'
        ? 'sse' : 'poll';
}

# HTTP/1.0

{
    my $c = RT::HTTP->new($ngx);
    $c->send(GET => '/rt/a', version => '1.0');
    my $r = $c->read;
    is($r->status . $r->body, '200one', 'HTTP/1.0: a poll');
    is($r->header('Transfer-Encoding'), undef, 'no chunks');
    is($r->header('Content-Length'), 3, 'a length');
    ok($c->ended, 'then the end');

    $c = RT::HTTP->new($ngx);
    for my $h ([], ['If-None-Match' => $etag], []) {
        $c->send(GET => '/rt/a', version => '1.0',
            headers => [Connection => 'keep-alive', @$h]);
        $r = $c->read;
        is($r->status . $r->body, @$h ? '304' : '200one',
            "HTTP/1.0 keep-alive @$h");
        is($r->header('Connection'), 'keep-alive', 'which is told');
    }
    $c->close;

    for my $h ([], [Connection => 'keep-alive']) {
        my $s = RT::SSE->new($ngx, '/short/a', version => '1.0',
            headers => $h);
        is($s->header('Transfer-Encoding'), undef, 'a stream without chunks');
        is($s->header('Connection'), 'close', 'ended by a close');
        $s->expect('one');
        ok($s->ended && $s->clean, 'it ends');
    }
}

# keep-alive, pipelining

{
    my $c = RT::HTTP->new($ngx);
    my $bad = 0;
    for my $n (1 .. 100) {
        $c->send(GET => '/rt/a', $n % 2 ? @hit : ());
        my $r = $c->read;
        $bad++ if $r->status . $r->body ne ($n % 2 ? '304' : '200one');
    }
    is($bad, 0, '100 polls on one connection');

    my ($text, @want) = '';
    for my $n (1 .. 10) {
        my ($method, $path, $hit, $want) = @{([GET => 'a', 1, '304'],
            [GET => 'a', 0, '200one'], [GET => 'none', 0, '204'],
            [HEAD => 'a', 0, '200'], [GET => 'a,b', 0, '200['])[$n % 5]};
        $text .= RT::HTTP::request_text($method, "/rt/$path", $hit ? @hit : ());
        push @{$c->{methods}}, $method;
        push @want, $want;
    }
    $c->write($text);
    my @got = map { my $r = $c->read;
                    $r->status . $r->body =~ s/^\[\K.*//rs } @want;
    is("@got", "@want", '10 in one write, in order');
    $c->send(HEAD => '/rt/a');
    $c->send(GET => '/rt/a');
    is($c->read->status . $c->read->body, '200one', 'one after a HEAD');
    $c->send(HEAD => '/rt/a', @sse);
    $c->send(GET => '/rt/a');
    my $h = $c->read;
    is(kind($h), 'sse', "HEAD of a stream");
    is($h->header('X-Accel-Buffering'), 'no', 'has its headers');
    is($c->read->body, 'one', 'and the connection goes on');

    # HEAD is GET without the body

    get($ngx, '/app/none');
    $redis->wait_sub('none');
    my $was = '';
    wait_for { my $now = get($ngx, '/app/none')->header('ETag');
               ($was, $now) = ($now, $was); $was eq $now } 5, 'no more changes';
    for my $case (['/rt/a'], ['/rt/none'], ['/rt/a', @hit], ['/rt/a,b'],
        ['/app/none'])
    {
        my ($path, @o) = @$case;
        my ($g, $h) = (get($ngx, $path, @o), head($ngx, $path, @o));
        delete $_->{headers}{date} for $g, $h;
        is_deeply([$h->status, $h->headers], [$g->status, $g->headers],
            "HEAD $path is " . $g->status);
        ok(defined $h->header('ETag'), 'with an ETag');
        is($h->header('Content-Length'), length $g->body, 'and a length')
            if $g->status == 200;
    }
    $c->close;
}

# bodies nobody asked for

for my $path ('/rt/a', '/app/x') {
    my $c = RT::HTTP->new($ngx);
    my $want = $path eq '/rt/a' ? '200one' : '204';
    my $big = 'x' x 100_000;
    $c->send(GET => $path, body => 'hello');
    my $r = $c->read;
    is($r->status . $r->body, $want, "$path: a body");
    $c->write("GET $path HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
        . "\r\n\r\n5\r\nGET /\r\n");
    push @{$c->{methods}}, 'GET';
    $r = $c->read;
    is($r->status . $r->body, $want, 'a chunked one, answered before its end');
    $c->write("3\r\nabc\r\n0\r\n\r\n");
    $c->send(GET => $path, body => $big);
    $c->send(GET => $path);
    for (1, 2) {
        $r = $c->read;
        is($r->status . $r->body, $want, 'the next on that connection');
    }
    $c->close;

    $c = RT::HTTP->new($ngx);
    $c->write("GET $path HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        . "Expect: 100-continue\r\n\r\n");
    $r = $c->read;
    if ($r->status == 100) {
        $c->write('hello');
        $r = $c->read;
    }
    is($r->status . $r->body, $want, 'Expect: 100-continue');
    $c->close;
}

for my $body ([body => 'hello'],
    [headers => [Accept => 'text/event-stream',
        'Transfer-Encoding' => 'chunked'], body => "3\r\nabc\r\n0\r\n\r\n"],
    [headers => [Accept => 'text/event-stream',
        'Transfer-Encoding' => 'chunked'], body => "3\r\nabc\r\n"])
{
    my $s = RT::SSE->new($ngx, '/rt/bodies', @$body);
    is($s->status, 200, 'a stream with a body');
    wait_for { RT::SSE::pump(0.1, $s); $s->last_id } 5, 'a place';
    publish(bodies => 'm');
    $s->expect('m');
    $s->close;
}

# methods

for my $method (qw(OPTIONS POST PUT DELETE PATCH)) {
    for my $accept ('*/*', 'text/event-stream') {
        my $c = RT::HTTP->new($ngx);
        $c->send($method => '/rt/a', body => 'x',
            headers => [Accept => $accept]);
        my $r = $c->read;
        is($r->status, 405, "$method, Accept: $accept");
        is($r->header('ETag'), undef, 'shows no ETag');
        $c->send(GET => '/rt/a');
        is($c->read->body, 'one', 'the connection goes on');
        $c->close;
    }
}

# conditions

my $long = join ', ', map { qq("x$_") } 1 .. 900;
for my $case ([304, $etag], [304, "W/$etag"], [304, '*'], [304, ' * '],
    [304, qq("x",$etag)], [304, qq("x" , W/$etag,"y")], [304, ",, $etag"],
    [304, "$long, $etag"], [200, $long], [200, '"x"'], [200, $etag =~ s/"//gr],
    [200, substr $etag, 0, -1], [200, "w/$etag"], [200, "x, $etag"],
    [200, "*, $etag"], [200, ''], [200, '"' . 'A' x 7000 . '"'],
    [200, '"' x 7000], [200, ',' x 7000])
{
    my ($status, $value) = @$case;
    my $r = get($ngx, '/rt/a', headers => ['If-None-Match' => $value]);
    is($r->status, $status, "If-None-Match: " . substr($value, 0, 40));
    is($r->header('ETag'), $etag, 'the same ETag');
}
for my $h (['If-Modified-Since' => 'Fri, 01 Jan 2100 00:00:00 GMT'],
    ['If-Unmodified-Since' => 'Sat, 29 Oct 1994 19:43:31 GMT'],
    ['If-Match' => '"x"'], [Range => 'bytes=0-0'], [Range => 'bytes=9-'],
    [Range => 'bytes=0-0', 'If-Range' => $etag])
{
    my $r = get($ngx, '/rt/a', headers => $h);
    is($r->status . $r->body, '200one', "a poll with $h->[0]");
}
is(get($ngx, '/rt/a', headers => ['If-None-Match' => $etag,
    'If-Modified-Since' => 'Sat, 29 Oct 1994 19:43:31 GMT'])->status, 304,
    'If-None-Match is what counts');
for my $h (['If-None-Match' => '*'], ['If-None-Match' => $etag],
    ['If-Modified-Since' => 'Fri, 01 Jan 2100 00:00:00 GMT'],
    ['If-Unmodified-Since' => 'Sat, 29 Oct 1994 19:43:31 GMT'],
    ['If-Match' => '"x"'], [Range => 'bytes=0-0'])
{
    is(kind(head_of('/rt/a', Accept => 'text/event-stream', @$h)), 'sse',
        "a stream with $h->[0]");
}

# negotiation: what /rt, /poll and /sse answer

for my $case (
    [undef,                               qw(poll poll sse)],
    ['',                                  qw(poll poll sse)],
    ['*/*',                               qw(poll poll sse)],
    ['text/html, */*;q=0.8',              qw(poll poll sse)],
    ['text/event-stream',                 qw(sse 406 sse)],
    ['TEXT/Event-Stream',                 qw(sse 406 sse)],
    ['text/event-stream;q=0.5',           qw(sse 406 sse)],
    ['text/event-stream; charset=utf-8',  qw(sse 406 sse)],
    ['text/plain, text/event-stream',     qw(sse poll sse)],
    ['text/event-stream, */*',            qw(sse poll sse)],
    ['text/event-stream;q=0',             qw(poll poll 406)],
    ['text/event-stream;q=0.000, */*',    qw(poll poll sse)],
    ['text/event-stream; q=0 , text/*',   qw(poll poll 406)],
    ['text/event-stream;Q=0,text/plain',  qw(poll poll 406)],
    ['text/event-stream;q=0;x=1, a/b',    qw(poll poll 406)],
    ['text/event-stream;xq=0, a/b',       qw(sse poll sse)],
    ['text/event-stream;q=0.01, a/b',     qw(sse poll sse)],
    ['text/*',                            qw(poll poll 406)],
    ['*/*;q=0',                           qw(poll poll 406)],
    ['application/json',                  qw(poll poll 406)],
    ['text/event-streams',                qw(poll poll 406)],
    ['xtext/event-stream',                qw(poll poll 406)],
) {
    my ($accept, @want) = @$case;
    my @got = map { kind(head_of("/$_/a",
        defined $accept ? (Accept => $accept) : ())) } qw(rt poll sse);
    is("@got", "@want", 'Accept: ' . ($accept // 'none'));
}
is(kind(head_of('/rt/a', Accept => 'text/html', Accept => 'text/event-stream')),
    'sse', 'Accept in two lines');
is(get($ngx, '/poll/a', @sse)->header('ETag'), undef, 'a 406 shows no ETag');

# Prefer: what is not to be held does not claim to be (t/38-wait.t: what is)

for my $value ('wait=0', 'wait=x', 'wait', 'wait=-1, respond-async', '=;,') {
    my $r = get($ngx, '/rt/a', headers => ['If-None-Match' => $etag,
        Prefer => $value, Prefer => 'respond-async']);
    is($r->status, 304, "Prefer: $value");
    ok(!defined $r->header('Preference-Applied')
       && $r->elapsed < RT::scale(1), 'is not held');
}

# TLS, HTTP/2

# a curl in the background: its output so far
package Curl {
    use v5.36;
    my $n = 0;
    sub new ($class, @args) {
        my $out = RT::dir() . '/curl' . ++$n;
        my $pid = RT::spawn(['curl', '-sSNki', '--max-time', 60, @args],
            out => $out);
        return bless { pid => $pid, out => $out }, $class;
    }
    sub text ($self) { return RT::slurp($self->{out}) }
    sub stop ($self) { RT::kill_group($self->{pid}) }
}

for my $case (
    ['h2c', 'http://127.0.0.1:' . $ngx->port(1), '--http2-prior-knowledge', 2],
    ['h2', 'https://127.0.0.1:' . $ngx->port(2), '--http2', 2],
    ['TLS', 'https://127.0.0.1:' . $ngx->port(2), '--http1.1', 1.1],
) {
    my ($name, $url, $flag, $version) = @$case;
    my @args = ('-k', $flag);
    my @poll = (@args, '-w', '%{http_version} %{http_code}');
    my (undef, $out) = curl(@poll, "$url/rt/a");
    is($out, "one$version 200", "$name: a poll");
    (undef, $out) = curl(@poll, '-H', "If-None-Match: $etag", "$url/rt/a");
    is($out, "$version 304", "$name: a 304");
    (undef, $out) = curl(@poll, "$url/rt/none");
    is($out, "$version 204", "$name: a 204");
    (undef, $out) = curl(@poll, '-I', '-H', 'Accept: text/event-stream',
        "$url/rt/a");
    like($out, qr/content-type: text\/event-stream.*$version 200$/si,
        "$name: HEAD of a stream");

    my $channel = lc "c-$name";
    my $c = Curl->new($flag, '-H', 'Accept: text/event-stream',
        "$url/rt/$channel");
    wait_for { $c->text =~ /^id: /m } 10, "$name: a place";
    for my $n (1 .. 3) {
        publish($channel, "m$n");
        wait_ok { $c->text =~ /^data: m$n\n\n/m } 2, "$name: event $n at once";
    }
    $c->stop;

    my $s = Curl->new($flag, '-H', 'Accept: text/event-stream',
        "$url/short/a");
    wait_ok { !RT::running($s->{pid}) } 10, "$name: a short stream ends";
    is($? >> 8, 0, 'cleanly');
    like($s->text, qr/data: one/, 'with its message');
}

# HTTP/2 frames by hand: a client that resets one stream of its connection

package H2 {
    use v5.36;
    use Time::HiRes qw(time);
    sub new ($class, $port) {
        my $self = bless { http => RT::HTTP->new("127.0.0.1:$port"),
                           data => {}, ended => {}, status => {} }, $class;
        $self->{http}->write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        $self->frame(4, 0, 0, '');
        return $self;
    }
    sub frame ($self, $type, $flags, $id, $payload) {
        $self->{http}->write(pack('NCCN', length($payload) << 8 | $type,
            $flags, 0, 0) =~ s/\A(.{4})(.).*/$1$2/sr . pack('N', $id)
            . $payload);
    }
    sub str ($s) { return pack('C', length $s) . $s }
    sub open ($self, $id, $path) {
        my $block = join '', map { "\0" . str($_->[0]) . str($_->[1]) }
            [':method', 'GET'], [':scheme', 'http'], [':path', $path],
            [':authority', 'x'], ['accept', 'text/event-stream'];
        $self->frame(1, 5, $id, $block);
    }
    # reads for so long, or until COND
    sub pump ($self, $seconds, $cond) {
        my $end = time + RT::scale($seconds);
        until ($cond->()) {
            my ($len, $type, $flags, $id);
            my $ok = eval {
                my $h = $self->{http}->_bytes(9, $end);
                my ($hi, $lo, $t, $f, $i) = unpack 'CnCCN', $h;
                ($len, $type, $flags, $id) = ($hi << 16 | $lo, $t, $f, $i);
                my $payload = $self->{http}->_bytes($len, $end);
                $self->{data}{$id} .= $payload if $type == 0;
                $self->{ended}{$id} = 1 if $type < 2 && $flags & 1;
                $self->{reset}{$id} = 1 if $type == 3;
                $self->{goaway} = 1 if $type == 7;
                $self->frame(4, 1, 0, '') if $type == 4 && !($flags & 1);
                1;
            };
            return 0 if !$ok;
        }
        return 1;
    }
}

{
    my $h2 = H2->new($ngx->port(1));
    my @ids = (1, 3, 5, 7);
    my $log = slurp($ngx->dir . '/logs/access.log');
    $h2->open($_, '/rt/rst') for @ids;
    my $all = sub ($like, @ids) {
        sub { @ids == grep { ($h2->{data}{$_} // '') =~ $like } @ids };
    };
    ok($h2->pump(5, $all->(qr/^id: /m, @ids)), 'four streams');
    publish(rst => 'm1');
    ok($h2->pump(5, $all->(qr/data: m1\n/, @ids)), 'with an event');
    $h2->frame(3, 0, 3, pack 'N', 8);
    wait_ok { slurp($ngx->dir . '/logs/access.log') =~ m{/rt/rst } } 5,
        'the one that is reset has ended';
    publish(rst => 'm2');
    ok($h2->pump(5, $all->(qr/data: m2\n/, 1, 5, 7)), 'the others go on');
    unlike($h2->{data}{3}, qr/m2/, 'it does not');
    $h2->open(9, '/short/rst');
    ok($h2->pump(5, sub { $h2->{ended}{9} }), 'one that ends by itself');
    like($h2->{data}{9}, qr/data: m2\n/, 'after its message');
    publish(rst => 'm3');
    ok($h2->pump(5, $all->(qr/data: m3\n/, 1, 5, 7)), 'leaves the others');
    ok(!$h2->{goaway}, 'no GOAWAY');
    $h2->{http}->close;
}

# many streams on one connection

{
    my $h2 = H2->new($ngx->port(1));
    my @ids = map { 2 * $_ + 1 } 0 .. 59;
    my $all = sub ($like) {
        sub { @ids == grep { ($h2->{data}{$_} // '') =~ $like } @ids };
    };
    $h2->open($_, '/rt/many') for @ids;
    ok($h2->pump(5, $all->(qr/^id: /m)), '60 streams on one connection');
    publish(many => "m$_") for 1 .. 5;
    ok($h2->pump(5, $all->(qr/data: m1\n.*data: m5\n/s)), 'each gets all');
    $h2->{http}->close;
}

# gzip: an event is written through at once

for my $accept ('identity', 'gzip') {
    my $c = Curl->new('--compressed', '-H', "Accept-Encoding: $accept", '-H',
        'Accept: text/event-stream',
        'http://127.0.0.1:' . $ngx->port(4) . '/rt/zip');
    wait_for { $c->text =~ /^id: /m } 10, "$accept: a place";
    is(($c->text =~ /^Content-Encoding: gzip/mi) ? 'gzip' : 'identity', $accept,
        "$accept: is it");
    for my $n (1 .. 3) {
        publish(zip => "$accept $n");
        wait_ok { $c->text =~ /^data: $accept $n\n\n/m } 2,
            "$accept: event $n at once";
    }
    $c->stop;
}
{
    my @z = (port => 4, headers => ['Accept-Encoding' => 'gzip']);
    my $r = get($ngx, '/rt/a', @z);
    is($r->header('Content-Encoding'), 'gzip', 'a poll may be compressed');
    like($r->header('ETag'), qr{^W/}, 'under a weak ETag');
    is(get($ngx, '/rt/a', port => 4, headers => ['Accept-Encoding' => 'gzip',
        'If-None-Match' => $r->header('ETag')])->status, 304,
        'which is current');
}

# behind another nginx

for my $path ('', '/11') {
    my $channel = $path ? 'px11' : 'px10';
    my $s = RT::SSE->new($ngx, "$path/rt/$channel", @sse, port => 3);
    wait_for { RT::SSE::pump(0.1, $s); $s->last_id } 5, 'a place';
    for my $n (1 .. 3) {
        publish($channel => "$n");
        my $e = $s->event(2);
        is($e->{data}, $n, "event $n comes through the proxy at once");
    }
    $s->close;
    my $r = get($ngx, "$path/rt/a", port => 3);
    is($r->status . $r->body, '200one', 'a poll');
    is(get($ngx, "$path/rt/a", port => 3, @hit)->status, 304, 'and a 304');
}

# every stream of a client that has left is forgotten

my $closed = 0;
wait_ok {
    my $log = slurp($ngx->dir . '/logs/access.log');
    $closed = () = $log =~ m{"GET (?:/11)?/rt/px1. HTTP/1}g;
    $closed == 4;
} 5, 'the proxied streams are closed on both sides';

# past stale no condition makes a 304

get($ngx, '/app/stale');
$redis->wait_sub('stale');
$redis->publish(stale => 'old');
wait_for { get($ngx, '/app/stale')->status == 200 } 5, 'it is known';
my $tag = get($ngx, '/app/stale')->header('ETag');
$redis->stop;
wait_ok { !defined get($ngx, '/app/stale')->header('ETag') } 10,
    'Redis is away: no ETag';
for my $value ('*', $tag, "W/$tag") {
    my $r = get($ngx, '/app/stale', headers => ['If-None-Match' => $value]);
    is($r->status . $r->body, '200old', "If-None-Match: $value");
}
my $r = get($ngx, '/app/never', headers => ['If-None-Match' => '*']);
is($r->status, 503, 'nothing retained');
like($r->header('Retry-After') // '', qr/^\d+$/, 'with Retry-After');
is(kind(head_of('/app/never', Accept => 'text/event-stream')), 'sse',
    'a stream opens all the same');

done_testing;
