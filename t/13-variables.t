# The $rt_* variables: in the access log, in headers, where there are none.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $ngx = RT::Nginx->new(
    http => <<'END',
    rt_hub app { zone 8m; }
    log_format rt escape=json '$request_method $uri $status '
        '$rt_transport|$rt_channel|$rt_result|$rt_messages|'
        '$rt_advice|$rt_close|$rt_version';
    access_log %%DIR%%/logs/rt.log rt;
    rt_heartbeat 200ms;
    rt_drain 100ms;
    rt_detach off;
END
    server => <<'END',
    location ~ ^/rt/(?<channel>.*)$ {
        rt_subscribe app $channel;
        add_header X-Version $rt_version always;
        add_header X-Channel $rt_channel always;
        add_header X-Transport $rt_transport always;
        add_header X-Result $rt_result always;
        add_header X-Advice $rt_advice always;
        location ~ ^/rt/short-(?<channel>.*)$ {
            rt_subscribe app $channel;
            rt_lifetime 300ms;
        }
        location ~ ^/rt/slow-(?<channel>.*)$ {
            rt_subscribe app $channel;
            rt_buffer 2k;
        }
    }
    location ~ ^/early/(?<channel>.*)$ {
        set $early "$rt_channel$rt_version$rt_messages";
        if ($rt_transport) { return 418; }
        rt_subscribe app $channel;
        add_header X-Early "<$early>";
        add_header X-Channel $rt_channel;
    }
    location ~ ^/pub/(?<channel>.*)$ { rt_publish app $channel; }
    location = /status { rt_status; }
    location = /text {
        set $a "$rt_channel$rt_version$rt_transport$rt_result";
        return 200 "<$a$rt_messages$rt_advice$rt_close>";
    }
    location = /denied { deny all; rt_subscribe app a; }
END
);

my $log = $ngx->dir . '/logs/rt.log';
my $seen = 0;

# the next line of the access log
sub logged ($like, $name) {
    my $line = wait_for {
        my @lines = split /\n/, slurp($log);
        @lines > $seen ? $lines[$seen] : undef;
    } 5, $name;
    $seen++;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return like($line // '', $like, $name);
}

my $version = qr/[A-Za-z0-9._,-]{8,64}/;

# polls

my $r = get($ngx, '/rt/a');
is($r->status, 204, 'nothing known');
logged(qr/^GET \/rt\/a 204 poll\|a\|miss\|0\|poll\|\|$version$/,
    'a poll of nothing');

post($ngx, '/pub/a', 'x');
logged(qr/^POST \/pub\/a 202 \|a\|\|0\|\|\|$/, 'a publish');

$r = get($ngx, '/rt/a');
my ($etag) = $r->header('ETag') =~ /"(.*)"/;
is($r->header('X-Version'), $etag, '$rt_version is the ETag, in a header');
is($r->header('X-Channel'), 'a', '$rt_channel');
is($r->header('X-Transport'), 'poll', '$rt_transport');
is($r->header('X-Result'), 'miss', '$rt_result');
is($r->header('X-Advice'), $r->header('RT-Advice'), '$rt_advice');
logged(qr/^GET \/rt\/a 200 poll\|a\|miss\|1\|poll\|\|\Q$etag\E$/, 'a poll');

$r = get($ngx, '/rt/a', headers => ['If-None-Match' => qq("$etag")]);
is($r->status, 304, 'the same poll again');
is($r->header('X-Result'), 'hit', '$rt_result of a 304');
logged(qr/^GET \/rt\/a 304 poll\|a\|hit\|0\|poll\|\|\Q$etag\E$/, 'a hit');

head($ngx, '/rt/a');
logged(qr/^HEAD \/rt\/a 200 poll\|a\|miss\|1\|poll\|\|\Q$etag\E$/, 'HEAD');

post($ngx, '/pub/b', 'y');
logged(qr/^POST/, 'another publish');
$r = get($ngx, '/rt/a,b,a,c');
is($r->header('X-Channel'), 'a,b,c', 'several channels, each once');
logged(qr/^GET \/rt\/a,b,a,c 200 poll\|a,b,c\|miss\|2\|poll\|\|$version$/,
    'a poll of several');

get($ngx, '/rt/a%22%5C');
logged(qr/^GET \/rt\/a\\"\\\\ 204 poll\|a\\"\\\\\|miss\|0\|/,
    'a name is escaped as everything is');

# not ours

is(get($ngx, '/text')->body, '<>', 'elsewhere they are empty');
logged(qr/^GET \/text 200 \|\|\|\|\|\|$/, 'and in its log');
get($ngx, '/status');
logged(qr/^GET \/status 200 \|\|\|\|\|\|$/, 'the status has none');
get($ngx, '/denied');
logged(qr/^GET \/denied 403 \|\|\|\|\|\|$/, 'what was denied has none');
get($ngx, '/rt/a%20b');
logged(qr/^GET \/rt\/a b 400 \|\|\|0\|\|\|$/, 'a bad name');
$r = get($ngx, '/early/a');
is($r->header('X-Early'), '<>', 'too early: empty');
is($r->header('X-Channel'), 'a', 'then not, they are not cached');
logged(qr/^GET \/early\/a 200 poll\|a\|miss\|1\|/, 'and in the log');

# streams

my $sse = RT::SSE->new($ngx, '/rt/s');
is($sse->header('X-Transport'), 'sse', '$rt_transport of a stream');
is($sse->header('X-Channel'), 's', '$rt_channel of a stream');
for (1 .. 3) {
    post($ngx, '/pub/s', "m$_");
    logged(qr/^POST/, "message $_");
}
$sse->wait(3);
$sse->close;
logged(qr/^GET \/rt\/s 200 sse\|s\|[a-z]*\|3\|[a-z]*\|client\|/,
    'a stream that its client closed, with its messages');

$sse = RT::SSE->new($ngx, '/rt/short-s');
ok($sse->ended(5), 'a short one ends');
logged(qr/^GET \/rt\/short-s 200 sse\|s\|[a-z]*\|1\|[a-z]*\|lifetime\|/,
    'one that has lived long enough');

my $slow = RT::SSE->new($ngx, '/rt/slow-s', rcvbuf => 4096);
my $posts = 0;
my $is_slow = sub { slurp($log) =~ /^GET \/rt\/slow-s .*$/m ? $& : undef };
while ($posts++ < 2000 && !$is_slow->()) {
    post($ngx, '/pub/s', 'x' x 20_000);
}
like($is_slow->() // '',
    qr/^GET \/rt\/slow-s 200 sse\|s\|[a-z]*\|\d+\|[a-z]*\|slow\|/,
    'one that was slow');
$slow->close;

$sse = RT::SSE->new($ngx, '/rt/d');
$ngx->reload;
my $drained = wait_for { slurp($log) =~ /^GET \/rt\/d .*$/m ? $& : undef } 5,
    'the stream of a worker that quits is logged';
like($drained // '', qr/^GET \/rt\/d 200 sse\|d\|[a-z]*\|0\|[a-z]*\|drain\|/,
    'one whose worker quits');
$sse->close;

done_testing;
