# rt_publish: what is taken and answered, by an embedded hub and by Redis.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use JSON::PP qw(decode_json);

sub json ($r) {
    return eval { decode_json($r->body) } // { error => $r->body };
}

# a 4xx or 5xx of ours: one line of text
sub refused ($r, $status, $name) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is($r->status, $status, "$name: status");
    like($r->header('Content-Type'), qr/^text\/plain/, "$name: text/plain");
    like($r->body, qr/\A[^\r\n]+\n\z/, "$name: one line");
}

# an embedded hub

my $server = <<'END';
    location ~ ^/rt/(?<channel>(?s:.*))$ { rt_subscribe local $channel; }
    location ~ ^/pub/(?<channel>(?s:.*))$ { rt_publish local $channel; }
    location ~ ^/small/(?<channel>(?s:.*))$ {
        client_body_buffer_size 1k;
        rt_publish local $channel;
    }
    location ~ ^/file/(?<channel>(?s:.*))$ {
        client_body_in_file_only clean;
        rt_publish local $channel;
    }
    location ~ ^/one/(?<channel>(?s:.*))$ {
        client_body_in_single_buffer on;
        rt_publish local $channel;
    }
    location /denied { deny all; rt_publish local a; }
    location ~ ^/both/(?<channel>(?s:.*))$ {
        rt_subscribe local $channel;
        if ($request_method = POST) { rt_publish local $channel; }
    }
    location ~ ^/limited/(?<channel>(?s:.*))$ {
        rt_subscribe local $channel;
        limit_except GET { rt_publish local $channel; }
    }
END

my $ngx = RT::Nginx->new(
    workers => 4,
    http    => "rt_hub local { zone 8m; message_max 64k; }\n"
             . 'client_max_body_size 1m;',
    server  => "listen 127.0.0.1:%%PORT1%% http2; $server",
);

my $r = post($ngx, '/pub/a', 'hello');
is($r->status, 202, 'POST is accepted');
is($r->header('Content-Type'), 'application/json', 'the answer is JSON');
my $first = json($r);
is($first->{channel}, 'a', 'it names the channel');
like($first->{id}, qr/\A[A-Za-z0-9._,-]{1,64}\z/, 'and the cursor');
is($first->{receivers}, 0, 'and that nobody listens');
is_deeply([sort keys %$first], [qw(channel id receivers)], 'and no more');

$r = get($ngx, '/rt/a');
is($r->body, 'hello', 'the next poll has it');
is($r->header('ETag'), qq("$first->{id}"), 'under the same cursor');
is(get($ngx, '/rt/a', headers => ['If-None-Match' => qq("$first->{id}")])
    ->status, 304, 'which is the current one');

my $second = json(request($ngx, PUT => '/pub/a', body => 'again'));
isnt($second->{id}, undef, 'PUT is accepted');
isnt($second->{id}, $first->{id}, 'the cursor is another');
is(get($ngx, '/rt/a')->body, 'again', 'the next poll has that');

for my $method (qw(GET HEAD DELETE OPTIONS)) {
    $r = request($ngx, $method => '/pub/a');
    is($r->status, 405, "$method: 405");
    is($r->header('Allow'), 'POST, PUT', "$method: what is allowed");
}

# bodies: small, exactly the limit, in pieces, in files

my %body = (
    'no bytes'    => '',
    'a line'      => "one line\n",
    'odd bytes'   => join('', map { chr } 0 .. 255) . "\r\n\r\n\0",
    'a few KB'    => 'x' x 5000 . 'end',
    'over 16 KB'  => join('', map { "line $_\r\n" } 1 .. 3000),
    'the maximum' => 'm' x 65536,
);

sub chunked ($bytes, $size) {
    my $text = '';
    while (length $bytes) {
        my $piece = substr $bytes, 0, $size, '';
        $text .= sprintf "%x\r\n%s\r\n", length $piece, $piece;
    }
    return "${text}0\r\n\r\n";
}

sub arrives ($name, $path, $body, %opt) {
    my $got = post($ngx, "$path/body", $opt{sent} // $body, %opt);
    my $poll = get($ngx, '/rt/body');
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok($got->status == 202 && $poll->body eq $body
        && $poll->header('ETag') eq qq("@{[json($got)->{id}]}"), $name)
        or diag($got->line, ', ', length $poll->body, ' bytes');
}

for my $name (sort keys %body) {
    my $body = $body{$name};
    for my $path (qw(/pub /small /file /one)) {
        arrives("$name, $path", $path, $body);
        arrives("$name, $path, chunked", $path, $body,
            sent => chunked($body, 1111),
            headers => ['Transfer-Encoding' => 'chunked']);
    }
}

# over the limit

my $over = 'x' x 65537;
for my $path (qw(/pub /small /file /one)) {
    refused(post($ngx, "$path/body", $over), 413, "a byte too many, $path");
    refused(post($ngx, "$path/body", chunked($over, 4000),
        headers => ['Transfer-Encoding' => 'chunked']),
        413, "a byte too many, chunked, $path");
}
is(get($ngx, '/rt/body')->body, $body{'the maximum'}, 'nothing came of it');

my $c = RT::HTTP->new($ngx);
$c->send(POST => '/pub/a', headers => ['Content-Length' => 100_000,
    Expect => '100-continue']);
is($c->read->status, 413, 'refused before the body is asked for');
$c->close;

$c = RT::HTTP->new($ngx);
$c->send(POST => '/pub/a', headers => ['Content-Length' => 2,
    Expect => '100-continue']);
is($c->read->status, 100, 'asked for');
$c->write('hi');
is($c->read->status, 202, 'and taken');
$c->close;

# one connection for many

$c = RT::HTTP->new($ngx);
$c->send(POST => "/pub/pipe", body => "n$_") for 1 .. 50;
$c->send(POST => '/pub/pi%20pe', body => 'refused');
$c->send(POST => '/pub/pipe', body => 'last');
my @status = map { $c->read->status } 1 .. 52;
is_deeply(\@status, [(202) x 50, 400, 202], 'pipelined, and after a refusal');
is(get($ngx, '/rt/pipe')->body, 'last', 'in order');
$c->close;

# names

refused(post($ngx, '/pub/', 'x'), 400, 'no name');
refused(post($ngx, '/pub/a%20b', 'x'), 400, 'a space');
refused(post($ngx, '/pub/a%01b', 'x'), 400, 'a control byte');
refused(post($ngx, '/pub/a%0D%0Ab', 'x'), 400, 'a line end');
refused(post($ngx, '/pub/a%7F', 'x'), 400, 'DEL');
refused(post($ngx, '/pub/' . 'n' x 256, 'x'), 400, '256 bytes');
refused(post($ngx, '/pub/a,b', 'x'), 400, 'two names');

my $long = 'n' x 255;
is(json(post($ngx, "/pub/$long", 'x'))->{channel}, $long, '255 bytes');
$r = json(post($ngx, '/pub/%22%5C%C3%A9', 'x'));
is($r->{channel}, "\"\\\x{e9}", 'what JSON must escape is escaped');
is(post($ngx, '/pub/%FF%FE', 'x')->status, 202, 'bytes that are no UTF-8');

# event names

is(post($ngx, '/pub/ev', 'x', headers => ['RT-Event' => 'price'])->status,
    202, 'an event name');
my $sse = RT::SSE->new($ngx, '/rt/ev');
my $event = $sse->event;
is($event->{event}, 'price', 'arrives') if ok($event, 'an event');
post($ngx, '/pub/ev', 'y', headers => ['rt-event' => 'e' x 255]);
is(($sse->event // {})->{event}, 'e' x 255, 'of 255 bytes');
for my $bad ('rt.gap', 'rt.', 'e' x 256, '') {
    refused(post($ngx, '/pub/ev', 'x', headers => ['RT-Event' => $bad]),
        400, "event '" . ($bad =~ s/e{9,}/e.../r) . "'");
}
$sse->none(0.2);
$sse->close;

# receivers: streams of the node, whichever worker has them

my @streams = map { RT::SSE->new($ngx, '/rt/watched') } 1 .. 12;
wait_ok { json(post($ngx, '/pub/watched', 'x'))->{receivers} == 12 } 5,
    'the streams of all workers are counted';
$_->close for splice @streams, 0, 5;
wait_ok { json(post($ngx, '/pub/watched', 'x'))->{receivers} == 7 } 5,
    'until they are closed';
is(json(post($ngx, '/pub/other', 'x'))->{receivers}, 0,
    'those of other channels are not');
my ($victim) = $ngx->workers;
$ngx->kill_worker(KILL => $victim);
wait_for { !grep { $_ == $victim } $ngx->workers } 5, 'a worker is killed';
my $left = grep { !$_->ended(0.1) } @streams;
wait_ok { json(post($ngx, '/pub/watched', 'x'))->{receivers} == $left } 5,
    "those of a killed worker are not counted, $left are left";
$_->close for @streams;

# HTTP/1.0 and HTTP/2

is(request($ngx, POST => '/pub/v', version => '1.0', body => 'old')->status,
    202, 'HTTP/1.0');
is(get($ngx, '/rt/v')->body, 'old', 'arrives');
is(request($ngx, POST => '/pub/v', version => '1.0')->status, 202,
    'HTTP/1.0 without a length: no bytes');
is(get($ngx, '/rt/v')->body, '', 'arrive');

my $h2 = 'http://127.0.0.1:' . $ngx->port(1);
for my $size (0, 10, 20_000, 65_536) {
    my $file = dir() . '/body';
    RT::spew($file, join '', map { chr $_ % 256 } 1 .. $size);
    my (undef, $got) = curl('--http2-prior-knowledge', '--data-binary',
        "\@$file", '-w', '%{http_version} %{http_code}', "$h2/pub/v");
    like($got, qr/^\{.*\}\n2 202$/, "HTTP/2, $size bytes");
    ok(get($ngx, '/rt/v')->body eq slurp($file), 'arrive');
}

# curl gives up when it is answered before it has sent all: ask the log
curl('--http2-prior-knowledge', '--no-show-error', '--data-binary',
    'x' x 65_537, "$h2/pub/v");
wait_ok { slurp($ngx->dir . '/logs/access.log')
    =~ /"POST \/pub\/v HTTP\/2\.0" 413 / } 5, 'HTTP/2, a byte too many';

# nginx's own

is(post($ngx, '/denied', 'x')->status, 403, 'access rules come first');
is(post($ngx, '/both/b', 'by if')->status, 202, 'in an if of a location');
is(get($ngx, '/both/b')->body, 'by if', 'that is subscribed');
is(post($ngx, '/limited/b', 'by limit')->status, 202, 'in limit_except');
is(get($ngx, '/limited/b')->body, 'by limit', 'that is subscribed');

# the least zone for a message_max takes messages of that size; a smaller one,
# where message_max is not set, refuses what it can't hold

my $large = 'rt_hub app { zone %s; %s }';
my (undef, $out) = nginx_t(http => sprintf $large, '8k', 'message_max 600k;');
my ($least) = $out =~ /must be at least (\d+k)/;
my $paths = 'client_max_body_size 2m;'
    . ' location ~ ^/pub/(?<channel>.*)$ { rt_publish app $channel; }'
    . ' location ~ ^/rt/(?<channel>.*)$ { rt_subscribe app $channel; }';
$ngx = RT::Nginx->new(server => $paths,
    http => sprintf $large, $least, 'message_max 600k; history 2;');
my $message = join '', map { "$_," } 1 .. 120_000;
$message = substr $message, 0, 600 * 1024;
is(post($ngx, "/pub/c$_", $message, headers => ['RT-Event' => 'e' x 255])
    ->status, 202, "600k in a zone of $least") for 1 .. 3;
is(get($ngx, '/rt/c3')->body, $message, 'arrives');
is(post($ngx, '/pub/c', "${message}x")->status, 413, 'and a byte more');

$ngx = RT::Nginx->new(http => sprintf($large, '1m', ''), server => $paths);
$sse = RT::SSE->new($ngx, '/rt/a');
refused(post($ngx, '/pub/a', 'x' x 200_000), 413, 'too large for the zone');
refused(post($ngx, '/pub/a', chunked('x' x 200_000, 50_000),
    headers => ['Transfer-Encoding' => 'chunked']), 413, 'chunked');
my ($low, $high) = (0, 262_144);
while ($high - $low > 1) {
    my $middle = int(($low + $high) / 2);
    my $status = post($ngx, '/pub/b', 'x' x $middle)->status;
    ($low, $high) = $status == 202 ? ($middle, $high) : ($low, $middle);
}
ok($low > 20_000 && $low < 100_000, "what fits is taken, up to $low bytes");
post($ngx, '/pub/a', 'end');
$sse->expect('end');
$sse->close;

# through Redis

my $redis = RT::Redis->new;
$ngx = RT::Nginx->new(
    redis => $redis,
    http  => <<'END',
    rt_hub raw { zone 8m; redis %%REDIS%%; prefix raw:; message_max 64k; }
    rt_hub json { zone 8m; redis %%REDIS%%; payload json; }
END
    server => <<'END',
    location ~ ^/raw/(?<channel>(?s:.*))$ { rt_publish raw $channel; }
    location ~ ^/json/(?<channel>(?s:.*))$ { rt_publish json $channel; }
    location ~ ^/rt/(?<channel>(?s:.*))$ { rt_subscribe raw $channel; }
    location ~ ^/jrt/(?<channel>(?s:.*))$ { rt_subscribe json $channel; }
END
);

my $listener = RT::RESP->new($redis->port);
$listener->send(SUBSCRIBE => 'raw:a');
$listener->read;
$r = post($ngx, '/raw/a', "pay\0load\r\n");
is($r->status, 202, 'Redis takes it');
is_deeply(json($r), { channel => 'a', id => undef, receivers => 1 },
    'with what it says, without a cursor');
is_deeply($listener->read, ['message', 'raw:a', "pay\0load\r\n"],
    'the prefix before the name, the payload as it is');
is(json(post($ngx, '/raw/nobody', ''))->{receivers}, 0, 'no byte to nobody');
is(post($ngx, '/raw/a', 'm' x 65536)->status, 202, 'the maximum');
refused(post($ngx, '/raw/a', 'm' x 65537), 413, 'and a byte more');
refused(post($ngx, '/raw/a', 'x', headers => ['RT-Event' => 'price']), 400,
    'an event name with payload raw');

$listener->send(SUBSCRIBE => 'a');
$listener->read for 1 .. 2;
post($ngx, '/json/a', "\"q\"\n", headers => ['RT-Event' => 'price']);
my $sent = eval { decode_json($listener->read->[2]) } // {};
is_deeply($sent, { data => "\"q\"\n", event => 'price' },
    'the envelope with payload json');
post($ngx, '/json/a', 'plain');
is_deeply(eval { decode_json($listener->read->[2]) }, { data => 'plain' },
    'and without an event');

$sse = RT::SSE->new($ngx, '/jrt/loop');
$redis->wait_sub('loop');
is(json(post($ngx, '/json/loop', "two\nlines",
    headers => ['RT-Event' => 'tick']))->{receivers}, 1, 'one node listens');
$event = $sse->event // {};
is("$event->{event} $event->{data}", "tick two\nlines", 'it comes round');
$sse->close;

my @clients = map { RT::HTTP->new($ngx) } 1 .. 100;
$clients[$_]->send(POST => "/raw/many", body => "n$_") for 0 .. 99;
is(scalar(grep { $_->read->status == 202 } @clients), 100, 'many at once');
$_->close for @clients;

$redis->stop;
wait_ok { post($ngx, '/raw/a', 'x')->status == 503 } 5,
    'Redis is away: 503';
$r = post($ngx, '/raw/a', 'x');
refused($r, 503, 'Redis is away');
like($r->header('Retry-After'), qr/\A[1-9]\d*\z/, 'with Retry-After');
$redis->start;
wait_ok { post($ngx, '/raw/a', 'x')->status == 202 } 10,
    'Redis is back: 202';

# a Redis that has its own mind

my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
    return $conn->default(@cmd) if uc $cmd[0] ne 'PUBLISH';
    my $mode = $conn->mode;
    return $conn->err($mode) if $mode =~ /^[A-Z]/;
    return if $mode eq 'silent';
    return $conn->close if $mode eq 'close';
    return $conn->raw("garbage\r\n") if $mode eq 'garbage';
    return $conn->bulk('text') if $mode eq 'text';
    $conn->default(@cmd);
});
$ngx = RT::Nginx->new(
    redis => $fake,
    http  => 'rt_hub app { zone 8m; redis %%REDIS%%; redis_timeout 1s 500ms;'
           . ' redis_reconnect 10ms 100ms; }',
    server => $paths,
);
is(post($ngx, '/pub/a', 'x')->status, 202, 'as it should be');

for my $case (
    ['NOPERM this user has no permissions', 502, undef],
    ['ERR whatever', 502, undef],
    ['LOADING Redis is loading the dataset in memory', 503, 1],
    ['READONLY You can not write against a read only replica', 503, 1],
    ['silent', 502, undef],
    ['close', 502, undef],
    ['garbage', 502, undef],
    ['text', 502, undef],
) {
    my ($mode, $status, $after) = @$case;
    $fake->mode($mode);
    my $got = post($ngx, '/pub/a', 'x');
    refused($got, $status, "Redis: $mode");
    is(defined $got->header('Retry-After') ? 1 : undef, $after,
        "Redis: $mode: Retry-After");
    unlike($got->body, qr/NOPERM|whatever|dataset/, 'its words stay inside');
    $fake->mode('');
    wait_ok { post($ngx, '/pub/a', 'x')->status == 202 } 5, 'then all is well';
}

# clients that leave while Redis is asked

$fake->mode('silent');
my $before = $fake->commands(qr/^PUBLISH/);
@clients = map { RT::HTTP->new($ngx) } 1 .. 20;
$clients[$_]->send(POST => '/pub/gone', body => 'x') for 0 .. $#clients;
wait_for { $fake->commands(qr/^PUBLISH/) > $before } 5, 'they are asked';
$clients[$_]->${\($_ % 2 ? 'close' : 'reset')} for 0 .. $#clients;
$fake->mode('');
wait_ok { post($ngx, '/pub/a', 'x')->status == 202 } 5,
    'clients that left did no harm';

done_testing;
