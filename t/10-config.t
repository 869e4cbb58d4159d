# Every wrong configuration of the contract is refused by nginx -t with one
# [emerg] line that names the directive and says what to write; every right
# one passes.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $hub = "rt_hub app { zone 8m; }\n";

# what goes into location / of a server, an rt_hub block, or all of http
sub location ($text) {
    return (http => $hub, server => "location / { $text }");
}
sub hub ($text) { return (http => "rt_hub app { $text }") }
sub http ($text) { return (http => $text) }

sub refused ($name, $like, %args) {
    my ($ok, $out) = nginx_t(%args);
    my @emerg = grep { /\[emerg\]/ } split /\n/, $out;
    my @other = grep { /\[(?:alert|crit|error|warn)\]/ } split /\n/, $out;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $fine = !$ok && @emerg == 1 && !@other && $emerg[0] =~ $like;
    ok($fine, "refused: $name");
    diag("wanted $like, got\n$out") if !$fine;
}

sub accepted ($name, %args) {
    my ($ok, $out) = nginx_t(%args);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $fine = $ok && $out !~ /\[(?:emerg|alert|crit|error|warn)\]/;
    ok($fine, "accepted: $name");
    diag($out) if !$fine;
}

# a file with these bytes; its path
sub file ($name, $bytes) {
    my $path = dir() . "/$name";
    RT::spew($path, $bytes);
    return $path;
}

my $place = qr/ in \S+nginx\.conf:\d+$/;
my $url = 'redis://127.0.0.1:6379';
my $url_form = qr/it must be redis:\S+ or unix:\/path$place/;

# hubs

refused('a hub that is not defined',
    qr/unknown hub "nope" in "rt_subscribe" directive, it must be defined by "rt_hub nope \{ \}" in "http"$place/,
    location('rt_subscribe nope a;'));
refused('a hub that is not defined, for rt_publish',
    qr/unknown hub "nope" in "rt_publish" directive/,
    location('rt_publish nope a;'));
refused('a hub defined twice',
    qr/duplicate hub "app" in "rt_hub" directive, it is defined in \S+:\d+ already, it must have another name$place/,
    http("rt_hub app { }\nrt_hub app { }"));
refused('a hub without a name',
    qr/invalid number of arguments in "rt_hub" directive/,
    http('rt_hub { }'));
refused('a hub name with a variable',
    qr/invalid value "\$x" in "rt_subscribe" directive, it must be the name of a hub/,
    location('rt_subscribe $x a;'));
refused('a hub name of odd letters',
    qr/invalid value "a b" in "rt_hub" directive, it must be the name of a hub/,
    http('rt_hub "a b" { }'));
refused('a hub without a block',
    qr/directive "rt_hub" has no opening "\{"/, http('rt_hub app;'));
refused('a block in a hub', qr/unexpected "\{"/, hub('zone { }'));

# contexts

my $hub_here = qr/"rt_hub" directive is not allowed here, it must stand directly in "http"$place/;
refused('rt_hub in server', $hub_here, server => 'rt_hub app { }');
refused('rt_hub in location', $hub_here,
    server => 'location / { rt_hub app { } }');
refused('rt_hub at the top', qr/"rt_hub" directive is not allowed here/,
    main => 'rt_hub app { }');

for my $handler ('rt_subscribe app a', 'rt_publish app a', 'rt_status') {
    my ($name) = split / /, $handler;
    my $like = qr/"$name" directive is not allowed here, it must stand in a "location"$place/;
    refused("$name in http", $like, http("$hub $handler;"));
    refused("$name in server", $like, http => $hub, server => "$handler;");
    refused("$name in if of a server", $like,
        http => $hub, server => "if (\$arg_a) { $handler; }");
}

refused('rt_start at the top', qr/"rt_start" directive is not allowed here/,
    main => 'rt_start new;');
refused('a directive of the block outside of it',
    qr/unknown directive "message_max"/, http('message_max 1k;'));
refused('a directive of http in the block',
    qr/unknown directive "root" in "rt_hub" block, it may hold zone, redis,/,
    hub('root html;'));

# the gate

for my $at ('http', 'server', 'if of a server') {
    my $gate = 'rt_gate app a;';
    refused("rt_gate in $at",
        qr/"rt_gate" directive is not allowed here, it must stand in a "location"$place/,
        $at eq 'http' ? http("$hub $gate") : (http => $hub, server =>
            $at eq 'server' ? $gate : "if (\$arg_a) { $gate }"));
}
refused('rt_gate twice', qr/"rt_gate" directive is duplicate/,
    location('rt_gate app a; rt_gate app b;'));
refused('rt_gate without a channel',
    qr/invalid number of arguments in "rt_gate" directive/,
    location('rt_gate app;'));
refused('rt_gate by= alone',
    qr/"rt_gate" directive has no channel, it must have at least one$place/,
    location('rt_gate app by=publish;'));
refused('rt_gate by=time',
    qr/invalid value "time" in "rt_gate" directive, it must be by=publish or by=payload$place/,
    location('rt_gate app a by=time;'));
refused('a gate of a hub that is not defined',
    qr/unknown hub "nope" in "rt_gate" directive/,
    location('rt_gate nope a;'));
refused('rt_gate of too many',
    qr/"rt_gate" directive has too many channels, it must have at most 32$place/,
    location('rt_gate app ' . join(' ', map { "c$_" } 1 .. 33) . ';'));
for my $handler ('rt_subscribe app a', 'rt_publish app a', 'rt_status') {
    my ($name) = split / /, $handler;
    for my $order ("rt_gate app a; $handler;", "$handler; rt_gate app a;") {
        refused($order,
            qr/"rt_gate" directive and "$name" in one location, each must have a location of its own in \S+nginx\.conf:\d+$/,
            location($order));
    }
}
accepted('rt_gate', location($_)) for 'rt_gate app a;',
    'rt_gate app a $uri by=payload;', 'rt_gate app a,b by=publish; return 204;',
    'rt_gate app a; proxy_pass http://127.0.0.1:1;',
    'proxy_pass http://127.0.0.1:1; if ($arg_x) { rt_gate app a; }';

# two handlers in one location

my %handlers = (
    rt_subscribe => 'rt_subscribe app a;',
    rt_publish   => 'rt_publish app a;',
    rt_status    => 'rt_status;',
);
for my $one (sort keys %handlers) {
    for my $two (sort keys %handlers) {
        next if $one eq $two;
        refused("$one and $two",
            qr/"$two" directive and "$one" in one location, each must have a location of its own$place/,
            location("$handlers{$one} $handlers{$two}"));
    }
    refused("$one twice", qr/"$one" directive is duplicate/,
        location("$handlers{$one} $handlers{$one}"));
    for my $other ('proxy_pass http://127.0.0.1:1;', 'empty_gif;',
                   'stub_status;', 'fastcgi_pass 127.0.0.1:1;') {
        my $like = qr/"$one" directive and another content handler in one location, each must have a location of its own$place/;
        refused("$one before $other", $like,
            location("$handlers{$one} $other"));
        refused("$one after $other", $like,
            location("$other $handlers{$one}"));
    }
}

# zone

refused('zone twice', qr/"zone" directive is duplicate$place/,
    hub('zone 8m; zone 8m;'));
for my $bad ('many', '-1m', '1.5m', '""', '0', '8g') {
    refused("zone $bad",
        qr/invalid value "[^"]*" in "zone" directive, it must be a size such as 32m$place/,
        hub("zone $bad;"));
}
refused('zone without a size',
    qr/invalid number of arguments in "zone" directive/, hub('zone;'));
refused('zone app 8m', qr/invalid number of arguments in "zone" directive/,
    hub('zone app 8m;'));

for my $more ('', 'message_max 1m;', 'message_max 1k;',
              'message_max 4m;') {
    my (undef, $out) = nginx_t(hub("zone 8k; $more"));
    my ($least) = $out =~ /"zone" of 8192 bytes is too small for rt_hub "app"(?: with "message_max" of \d+ bytes)?, it must be at least (\d+)k in \S+:\d+$/m;
    ok($least, "refused: zone 8k; $more") or diag($out);
    $least //= 0;
    if ($more) {
        accepted("zone of ${least}k, the least, with '$more'",
            hub("zone ${least}k; $more"));
    } else {
        # the default of message_max gives way, with a warning
        my ($ok, $text) = nginx_t(hub("zone ${least}k;"));
        ok($ok && $text =~ /\[warn\] "message_max" .* is lowered/,
            "zone of ${least}k is the least") or diag($text);
    }
    refused('a page less',
        qr/"zone" of \d+ bytes is too small .* at least ${least}k/,
        hub('zone ' . ($least - 4) . "k; $more"));
}

# redis

for my $case (
    ['127.0.0.1:6379', 'unknown scheme'],
    ['http://127.0.0.1', 'unknown scheme'],
    ['redis:127.0.0.1', 'unknown scheme'],
    ['redis://', 'no host'],
    ['redis:///1', 'no host'],
    ['redis://:6379', 'no host'],
    ['redis://127.0.0.1:0', 'invalid port'],
    ['redis://127.0.0.1:65536', 'invalid port'],
    ['redis://127.0.0.1:port', 'invalid port'],
    ['redis://127.0.0.1/x', 'invalid db number'],
    ['redis://127.0.0.1/-1', 'invalid db number'],
    ['redis://127.0.0.1/0/1', 'invalid db number'],
    ['redis://127.0.0.1?a=b', 'invalid host'],
    ['redis://[::1', 'invalid host'],
    ['redis://[::g]:6379', 'invalid IPv6 address'],
    ['"redis://a b"', 'invalid host'],
    ['redis://$host:6379', 'invalid host'],
    ['unix:tmp/redis.sock', 'the path must be absolute'],
    ['unix:/' . 'a' x 200, 'too long path'],
) {
    my ($value, $why) = @$case;
    refused("redis $value",
        qr/invalid value "[^"]*" in "redis" directive, $why\b.*, $url_form/,
        hub("redis $value;"));
}
refused('the second of two urls',
    qr/invalid value "nonsense" in "redis" directive, .*, $url_form/,
    hub("redis $url nonsense;"));
refused('redis twice', qr/"redis" directive is duplicate/,
    hub("redis $url; redis $url;"));
refused('33 urls', qr/"redis" directive has too many urls, it must have at most 32/,
    hub("redis @{[join ' ', ($url) x 33]};"));
refused('TLS',
    qr/"rediss:\/\/" in "redis" directive is not supported by this version, it must be "redis:\/\/" or "unix:"$place/,
    hub('redis rediss://127.0.0.1;'));

for my $case (
    ['redis://user:sec%zzret@127.0.0.1', '"%" must begin %XX'],
    ['redis://user:secret%2@127.0.0.1', '"%" must begin %XX'],
    ['redis://user:secret%00@127.0.0.1', '"%" must begin %XX'],
    ['redis://user:secret@127.0.0.1:99999', 'invalid port'],
    ['redis://user:sec@ret@127.0.0.1:99999', 'invalid port'],
    ['http://user:secret@127.0.0.1', 'unknown scheme'],
    ['user:secret@127.0.0.1', 'unknown scheme'],
    ['redis://user:@127.0.0.1', 'empty password'],
    ['redis://@127.0.0.1', 'empty user'],
) {
    my ($value, $why) = @$case;
    refused("redis $value, whose password is not shown",
        qr/^(?!.*(?:sec|ret)).*invalid value "(?:\w+:\/\/)?\*\*\*\@127[^"]*" in "redis" directive, $why.*, $url_form/,
        hub("redis $value;"));
}

refused('a host that is not known',
    qr/host not found in "redis" directive: "nope\.invalid" of rt_hub "app", it must be a name known at start, or "resolver" be set in "http"$place/,
    hub('redis redis://nope.invalid:6379;'));
refused('a resolver of a server alone', qr/host not found in "redis" directive/,
    hub('redis redis://nope.invalid;'),
    server => 'resolver 127.0.0.1:53530;');
accepted('a host that is not known yet, with resolver',
    http("rt_hub app { redis redis://nope.invalid; }\n"
         . 'resolver 127.0.0.1:53530;'));

# passwords

my $empty = file('empty', '');
my $newline = file('newline', "\n");
my $lines = file('lines', "one\ntwo\n");
my $large = file('large', 'x' x 5000);
my $good = file('password', "secret\n");

refused('no password file',
    qr/cannot open "\S+\/missing" in "redis_password_file" directive, it must be a readable file with a password in it \(2: No such file or directory\)$place/,
    hub("redis $url; redis_password_file missing;"));
refused('a directory for a password file',
    qr/cannot read "\S+" in "redis_password_file" directive, it must be a readable file .*\(21: /,
    hub("redis $url; redis_password_file %%DIR%%;"));
for my $case ([$empty, 'is empty'], [$newline, 'is empty'],
              [$lines, 'has more than one line'], [$large, 'is too large']) {
    refused("a password file that $case->[1]",
        qr/"\Q$case->[0]\E" in "redis_password_file" directive $case->[1], it must hold a password of less than 4096 bytes in one line$place/,
        hub("redis $url; redis_password_file $case->[0];"));
}
refused('redis_password_file ""',
    qr/invalid value "" in "redis_password_file" directive, it must be the path of a file/,
    hub("redis $url; redis_password_file '';"));
refused('redis_password_file twice',
    qr/"redis_password_file" directive is duplicate/,
    hub("redis $url; redis_password_file $good; redis_password_file $good;"));
refused('redis_user twice', qr/"redis_user" directive is duplicate/,
    hub("redis $url; redis_user a; redis_user b;"));
refused('redis_user ""',
    qr/invalid value "" in "redis_user" directive, it must be the name of a user/,
    hub("redis $url; redis_user '';"));
for my $text ("redis $url; redis_user bob;", 'redis redis://bob@127.0.0.1;') {
    refused("a user without a password: $text",
        qr/user "bob" of "127\.0\.0\.1:6379" in rt_hub "app" has no password, it must come with "redis_password_file" or in "redis redis:\/\/user:password\@host"$place/,
        hub($text));
}
refused('a user without a password at an IPv6 address',
    qr/user "bob" of "\[::1\]:7" in rt_hub "app" has no password/,
    hub('redis redis://bob@[::1]:7/3;'));

# without Redis

for my $text ('redis_user bob', "redis_password_file $good",
              'redis_timeout 1s', 'redis_reconnect 1s 2s', 'subscribe a:*',
              'snapshot s:') {
    my ($name) = split / /, $text;
    refused("$name without redis",
        qr/"$name" directive needs "redis redis:\/\/host:port;" in rt_hub "app", without it the hub is embedded and asks no Redis$place/,
        hub("$text;"));
}

# values of the block

for my $case (
    ['redis_timeout 0', 'a time of 1ms'],
    ['redis_timeout soon', 'a time of 1ms'],
    ['redis_timeout 1s never', 'a time of 1ms'],
    ['redis_timeout 366d', 'a time of 1ms'],
    ['redis_reconnect 0 1s', 'a time of 1ms'],
    ['redis_reconnect 1s x', 'a time of 1ms'],
    ['redis_reconnect 2s 1s', 'a maximum of at least the minimum'],
    ['source redis', '"pubsub" or "stream"'],
    ['payload xml', '"raw" or "json"'],
    ['history 0', 'a number of messages of 1 to 1000000'],
    ['history -1', 'a number of messages of 1 to 1000000'],
    ['history all', 'a number of messages of 1 to 1000000'],
    ['history 1000001', 'a number of messages of 1 to 1000000'],
    ['history 64 0', 'a number of messages and a time of 1ms'],
    ['history 64 long', 'a number of messages and a time of 1ms'],
    ['inactive 0', 'a time of 1s'],
    ['inactive 500ms', 'a time of 1s'],
    ['inactive never', 'a time of 1s'],
    ['message_max 0', 'a size of 1'],
    ['message_max big', 'a size of 1'],
    ['message_max 513m', 'a size of 1'],
    ['stale x', 'a time of 0'],
    ["prefix '" . 'a' x 256 . "'", 'a string of up to 255 bytes'],
    ["snapshot '" . 'a' x 256 . "'", 'a string of up to 255 bytes that'],
    ["subscribe ''", 'one or more Redis patterns'],
) {
    my ($text, $must) = @$case;
    my ($name) = split / /, $text;
    refused($text =~ s/a{9,}/a.../r,
        qr/invalid value "[^"]*" in "$name" directive, it must be \Q$must\E.*$place/,
        hub("redis $url; $text;"));
}
refused('a pattern twice',
    qr/duplicate pattern "a:\*" in "subscribe" directive, each must stand there once/,
    hub("redis $url; subscribe a:* b:*; subscribe a:*;"));

for my $text ('redis_timeout 1s', 'redis_reconnect 1s 2s', 'source pubsub',
              'payload raw', 'history 3', 'inactive 1m', 'message_max 1k',
              'stale 1s', "prefix ''", 'snapshot s:', 'snapshot off') {
    my ($name) = split / /, $text;
    refused("$name twice", qr/"$name" directive is duplicate/,
        hub("redis $url; $text; $text;"));
}
for my $text ('redis', 'redis_timeout', 'redis_timeout 1s 1s 1s',
              'redis_reconnect 1s', 'source', 'subscribe', 'prefix',
              'snapshot', 'snapshot a b', 'payload raw json', 'history', 'history 1 1s 1', 'inactive',
              'message_max', 'stale', 'include') {
    my ($name) = split / /, $text;
    refused("$text: number of arguments",
        qr/invalid number of arguments in "$name" directive/, hub("$text;"));
}

# streams

accepted('source stream', hub("redis $url; source stream;"));
refused('source stream without redis',
    qr/"source stream" needs "redis redis:\/\/host:port;" in rt_hub "app", without it the hub is embedded and reads no streams/,
    hub('source stream;'));
for my $text ("subscribe 'a*'; source stream;",
              "source stream; subscribe 'a*';")
{
    refused($text,
        qr/"subscribe" directive can't be used with "source stream" in rt_hub "app", patterns need "source pubsub"/,
        hub("redis $url; $text"));
}

# not yet

for my $name (qw(redis_ssl_trusted_certificate redis_ssl_certificate
                 redis_ssl_certificate_key redis_ssl_verify redis_ssl_name
                 redis_sentinel redis_cluster)) {
    refused($name, qr/"$name" directive is not supported by this version/,
        hub("redis $url; $name on;"));
}
refused('source sharded',
    qr/"sharded" in "source" directive is not supported by this version, it must be "pubsub" or "stream"/,
    hub("redis $url; source sharded;"));
refused('rt_transport websocket',
    qr/"websocket" in "rt_transport" directive is not supported by this version, it must be "poll", "sse" or both/,
    location('rt_subscribe app a; rt_transport poll websocket;'));
for my $text ('html', 'prometheus') {
    refused("rt_status $text",
        qr/"$text" in "rt_status" directive is not supported by this version, it must be "json"/,
        location("rt_status $text;"));
}
for my $name (qw(rt_origin rt_client_publish rt_client_rate)) {
    refused($name, qr/unknown directive "$name"/, location("$name 1;"));
}

# values of http, server and location

refused('rt_detach 1',
    qr/invalid value "1" in "rt_detach" directive, it must be "on" or "off"/,
    location('rt_detach 1;'));

for my $case (
    ['rt_transport push', '"poll", "sse" or both'],
    ['rt_status xml', '"json"'],
    ['rt_start now', '"latest", "history" or "new"'],
    ['rt_event name', '"message" or "channel"'],
    ['rt_slow drop', '"close" or "latest"'],
    ['rt_heartbeat 0', 'a time of 100ms'],
    ['rt_heartbeat off', 'a time of 100ms'],
    ['rt_retry 0', 'a time of 1ms'],
    ['rt_retry x', 'a time of 1ms'],
    ['rt_lifetime x', 'a time of 0'],
    ['rt_stream_log /dev/null combined', '"text" or "json"'],
    ['rt_stream_log ""', 'the path of a file or "off"'],
    ['rt_lifetime 366d', 'a time of 0'],
    ['rt_drain x', 'a time of 0'],
    ['rt_wait x', 'a time of 0 to 365d in whole seconds'],
    ['rt_wait 500ms', 'a time of 0 to 365d in whole seconds'],
    ['rt_wait 366d', 'a time of 0 to 365d in whole seconds'],
    ['rt_buffer 0', 'a size of 1k'],
    ['rt_buffer 1023', 'a size of 1k'],
    ['rt_buffer x', 'a size of 1k'],
    ['rt_max_subscribers -1', 'a number of streams'],
    ['rt_max_subscribers x', 'a number of streams'],
    ['rt_poll_interval 500ms 1s', 'a minimum and a maximum in whole seconds'],
    ['rt_poll_interval 0 1s', 'a minimum and a maximum in whole seconds'],
    ['rt_poll_interval 1s x', 'a minimum and a maximum in whole seconds'],
    ['rt_poll_interval 3s 2s', 'a maximum of at least the minimum'],
    ['rt_advise 50', 'viewers=N, interval=T or both'],
    ['rt_advise readers=50', 'viewers=N, interval=T or both'],
    ['rt_advise viewers=1 viewers=2', 'viewers=N, interval=T or both'],
    ['rt_advise interval=1s interval=2s', 'viewers=N, interval=T or both'],
    ['rt_advise viewers=0', 'viewers=N with a number'],
    ['rt_advise viewers=', 'viewers=N with a number'],
    ['rt_advise interval=0', 'interval=T with a time'],
    ['rt_advise interval=often', 'interval=T with a time'],
) {
    my ($text, $must) = @$case;
    my ($name) = split / /, $text;
    refused($text,
        qr/invalid value "[^"]*" in "$name" directive, it must be \Q$must\E.*$place/,
        location("$text;"));
}
refused('a transport twice',
    qr/duplicate value "poll" in "rt_transport" directive, each must stand there once/,
    location('rt_transport poll poll;'));

for my $text ('rt_transport poll', 'rt_start new', 'rt_event channel',
              'rt_heartbeat 1s', 'rt_retry 1s', 'rt_lifetime 1s',
              'rt_poll_interval 1s 2s', 'rt_advise viewers=3', 'rt_buffer 1m',
              'rt_slow latest', 'rt_max_subscribers 3', 'rt_drain 1s', 'rt_wait 1s',
              'rt_detach off', 'rt_stream_log off') {
    my ($name) = split / /, $text;
    refused("$name twice", qr/"$name" directive is duplicate/,
        location("$text; $text;"));
    refused("$name without a value",
        qr/invalid number of arguments in "$name" directive/,
        location("$name;"));
}
for my $text ('rt_subscribe', 'rt_subscribe app', 'rt_publish app',
              'rt_publish app a b', 'rt_status json json', 'rt_start new new',
              'rt_poll_interval 1s', 'rt_poll_interval 1s 2s 3s') {
    my ($name) = split / /, $text;
    refused("$text: number of arguments",
        qr/invalid number of arguments in "$name" directive/,
        location("$text;"));
}

# channels

for my $bad ("''", "'a b'", 'a,,b', 'a,', ',', 'x' x 256) {
    refused('channel ' . ($bad =~ s/x{9,}/x.../r),
        qr/invalid value "[^"]*" in "rt_subscribe" directive, it must be a channel of 1 to 255 bytes without space/,
        location("rt_subscribe app $bad;"));
}
refused('33 channels',
    qr/"rt_subscribe" directive has too many channels, it must have at most 32/,
    location("rt_subscribe app @{[map { qq(c$_) } 1 .. 33]};"));
refused('33 channels with commas',
    qr/"rt_subscribe" directive has too many channels, it must have at most 32/,
    location("rt_subscribe app @{[join ',', 1 .. 33]};"));
refused('two channels to publish to',
    qr/"rt_publish" directive has too many channels, it must have one/,
    location('rt_publish app a,b;'));
refused('an unknown variable', qr/unknown "nope" variable/,
    location('rt_subscribe app $nope;'));

# what is right

accepted('nothing at all', http(''));
accepted('an embedded hub of defaults', http('rt_hub app { }'));
accepted('a hub that nobody uses beside a used one',
    location('rt_subscribe app a;'));
my $late = <<'END';
    server {
        listen 127.0.0.1:%%PORT1%%;
        location /a { rt_subscribe late $arg_c; }
        location /b { rt_publish late $arg_c; }
    }
    rt_hub late { zone 8m; }
END
accepted('a hub defined after its use', http($late));

accepted('32 channels',
    location("rt_subscribe app @{[map { qq(c$_) } 1 .. 16]} "
             . join(',', 17 .. 32) . ';'));
accepted('source pubsub without redis', hub('source pubsub; payload json;'));
accepted('snapshot off without redis', hub('snapshot off;'));
accepted("an empty prefix of snapshots", hub("redis $url; snapshot '';"));
accepted('as long a one as may be', hub("redis $url; snapshot @{['a' x 255]};"));

for my $value ('redis://127.0.0.1', 'redis://127.0.0.1/', 'REDIS://127.0.0.1:1/3',
               'redis://[::1]', 'redis://[::1]:6380/0', 'redis://localhost:6379',
               'redis://:secret@127.0.0.1', 'redis://user:secret@127.0.0.1:1/2',
               'redis://u%40:p%3a%2F%25@127.0.0.1', 'unix:/tmp/redis.sock',
               'unix:/tmp/a:b.sock', "$url unix:/tmp/redis.sock $url/2") {
    accepted("redis $value", hub("redis $value;"));
}
accepted('a password file with a user of the url',
    hub("redis redis://bob\@127.0.0.1; redis_password_file $good;"));
accepted('a password file, relative to the configuration',
    hub("redis $url; redis_password_file ../password; redis_user bob;"));

my $included = file('hub.inc', "zone 8m;\nhistory 3;\n");
accepted('include in the block', hub("include $included;"));
refused('an error in an included file',
    qr/"zone" directive is duplicate in \Q$included\E:1$/,
    hub("zone 8m; include $included;"));

my $values = <<'END';
    rt_transport sse poll;
    rt_start history;
    rt_event channel;
    rt_heartbeat 30s;
    rt_retry 500ms;
    rt_lifetime 1h;
    rt_poll_interval 1s 1m;
    rt_advise viewers=10 interval=1s;
    rt_buffer 64k;
    rt_slow latest;
    rt_max_subscribers 100;
    rt_drain 2s;
END

accepted('everything, everywhere',
    http => <<"END",
    rt_hub app {
        zone 16m;
        redis redis://user:pass\@127.0.0.1:6379/1 redis://[::1];
        redis_user bob;
        redis_password_file $good;
        redis_timeout 1s 3s;
        redis_reconnect 50ms 10s;
        source pubsub;
        subscribe orders:* news:*;
        subscribe more:*;
        prefix app:;
        payload json;
        history 100 1h;
        inactive 5m;
        message_max 64k;
        stale 30s;
    }
    rt_hub local { zone 8m; history 1; }
$values
END
    server => <<"END");
$values
    location ~ ^/rt/(?<channel>[\\w:.-]+)\$ {
        rt_subscribe app \$channel "news:\$arg_a,news:all" fixed;
$values
        limit_except GET { deny all; }
    }
    location /both {
        rt_subscribe local \$arg_c;
        if (\$request_method = POST) {
            rt_publish local \$arg_c;
        }
        limit_except GET POST { rt_status; }
    }
    location = /publish { allow 127.0.0.1; deny all; rt_publish app \$arg_c; }
    location = /status { rt_status; }
    location = /status.json { rt_status json; }
    location /proxied {
        rt_retry 1s;
        proxy_pass http://127.0.0.1:1;
        if (\$arg_rt) { rt_subscribe app a; }
    }
END

done_testing;
