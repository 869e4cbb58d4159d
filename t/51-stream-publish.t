# rt_publish with source stream: XADD, ids, events, MAXLEN, what Redis refuses.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use JSON::PP qw(decode_json);

sub json ($r) { return eval { decode_json($r->body) } // { bad => $r->body } }

# a 4xx or 5xx of ours: one line of text
sub refused ($r, $status, $name) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is($r->status, $status, "$name: status");
    like($r->header('Content-Type'), qr/^text\/plain/, "$name: text/plain");
    like($r->body, qr/\A[^\r\n]+\n\z/, "$name: one line");
}

my $redis = RT::Redis->new;
my $http = <<'END';
    rt_hub raw { zone 8m; redis %%REDIS%%; source stream; prefix s:;
                 message_max 64k; history 5; }
    rt_hub json { zone 8m; redis %%REDIS%%; source stream; payload json; }
    client_max_body_size 1m;
END
my $server = <<'END';
    location ~ ^/raw/(?<channel>(?s:.*))$ { rt_publish raw $channel; }
    location ~ ^/json/(?<channel>(?s:.*))$ { rt_publish json $channel; }
END
my $ngx = RT::Nginx->new(redis => $redis, http => $http, server => $server);

sub entries ($key) { return @{$redis->cmd(XRANGE => $key, '-', '+')} }

# one entry

my $r = post($ngx, '/raw/a', "pay\0load\r\n");
is($r->status, 202, 'Redis takes it');
is($r->header('Content-Type'), 'application/json', 'the answer is JSON');
my $answer = json($r);
my @entry = entries('s:a');
is_deeply($answer, { channel => 'a', id => $entry[0][0], receivers => undef },
    'with the id of the entry, of receivers nobody knows');
like($r->body, qr/"receivers":null\}\n\z/, 'written so');
is_deeply([map { $_->[1] } @entry], [[data => "pay\0load\r\n"]],
    'the prefix before the name, the payload as it is');

$r = post($ngx, '/raw/a', 'x', headers => ['RT-Event' => 'price']);
is($r->status, 202, 'an event');
@entry = entries('s:a');
is_deeply($entry[1][1], [data => 'x', event => 'price'], 'is a field');
is(json($r)->{id}, $entry[1][0], 'the id is that of this entry');

$r = request($ngx, PUT => '/raw/a', body => '');
is(json($r)->{id}, (entries('s:a'))[2][0], 'PUT, and no byte');
is_deeply((entries('s:a'))[2][1], [data => ''], 'is an empty field');

for my $bad ('rt.gap', 'e' x 256, '') {
    refused(post($ngx, '/raw/a', 'x', headers => ['RT-Event' => $bad]),
        400, "event '" . ($bad =~ s/e{9,}/e.../r) . "'");
}
is(post($ngx, '/raw/a', 'x', headers => ['RT-Event' => "\xe9" x 255])
    ->status, 202, 'an event of 255 bytes that are no UTF-8');
is((entries('s:a'))[3][1][3], "\xe9" x 255, 'travels');

is(post($ngx, '/raw/a', 'm' x 65_536)->status, 202, 'the maximum');
is(length((entries('s:a'))[4][1][1]), 65_536, 'arrives');
refused(post($ngx, '/raw/a', 'm' x 65_537), 413, 'and a byte more');
refused(post($ngx, '/raw/a%20b', 'x'), 400, 'a bad name');
is(scalar(entries('s:a')), 5, 'what was refused is not there');

my $long = 'n' x 255;
is(json(post($ngx, "/raw/$long", 'x'))->{channel}, $long, '255 bytes of name');
is(scalar(entries("s:$long")), 1, 'arrive');
$r = post($ngx, '/raw/%FF%22%C3%A9', 'x');
is(json($r)->{channel}, "\x{fffd}\"\x{e9}", 'a name of odd bytes');
is(scalar(entries("s:\xff\"\xc3\xa9")), 1, 'arrives');

# the length of the stream

post($ngx, '/raw/trim', "n$_") for 1 .. 400;
my $length = $redis->cmd(XLEN => 's:trim');
ok($length >= 5 && $length <= 205, "trimmed about history: $length of 400");
is((entries('s:trim'))[-1][1][1], 'n400', 'the newest are kept');
is($redis->cmd(XADD => 's:kept', '*', data => $_) =~ /-/, 1, 'by hand')
    for 1 .. 3;
is(post($ngx, '/raw/kept', 'x')->status, 202, 'a stream of others');
is(scalar(entries('s:kept')), 4, 'is gone on with');

# ids go up, answers come in the order of the requests

my $c = RT::HTTP->new($ngx);
$c->send(POST => '/raw/pipe', body => "n$_") for 1 .. 100;
my @id = map { json($c->read)->{id} } 1 .. 100;
my @stored = entries('s:pipe');
is_deeply([splice @id, -5], [map { $_->[0] } splice @stored, -5],
    'pipelined: each its own id');
$c->close;

my @clients = map { RT::HTTP->new($ngx) } 1 .. 100;
$clients[$_]->send(POST => "/raw/many$_", body => "n$_") for 0 .. 99;
my $right = 0;
for my $n (0 .. 99) {
    my $answer = json($clients[$n]->read);
    my ($entry) = entries("s:many$n");
    $right++ if $entry && $answer->{id} eq $entry->[0]
        && $entry->[1][1] eq "n$n";
}
is($right, 100, 'many at once');
$_->close for @clients;

# payload json

$r = post($ngx, '/json/a', "\"q\"\n", headers => ['RT-Event' => 'price']);
is($r->status, 202, 'payload json');
@entry = entries('a');
is($entry[0][1][0], 'data', 'has one field');
is_deeply(eval { decode_json($entry[0][1][1]) },
    { data => "\"q\"\n", event => 'price' }, 'the envelope, event and all');
is(scalar @{$entry[0][1]}, 2, 'and no other');
post($ngx, '/json/a', 'plain');
is_deeply(eval { decode_json((entries('a'))[1][1][1]) }, { data => 'plain' },
    'and without an event');
refused(post($ngx, '/json/a', "\xff"), 400, 'no UTF-8');
refused(post($ngx, '/json/a', 'x', headers => ['RT-Event' => "\xe9"]), 400,
    'an event that is no UTF-8');
is(scalar(entries('a')), 2, 'are not there');

# what a real Redis refuses

$redis->cmd(SET => 's:text', 'x');
refused(post($ngx, '/raw/text', 'x'), 502, 'a key of another type');
is($redis->cmd(GET => 's:text'), 'x', 'is left alone');
like($ngx->log, qr/Redis refused a publish: "WRONGTYPE/, 'the log says why');

sub passing ($name, $on, $off) {
    $redis->cmd(@$on);
    my $r = post($ngx, '/raw/a', 'x');
    refused($r, 503, $name);
    is($r->header('Retry-After'), 1, "$name: Retry-After");
    $redis->cmd(@$off);
    wait_ok { post($ngx, '/raw/a', 'x')->status == 202 } 5, "$name: over";
}

passing('out of memory', [qw(CONFIG SET maxmemory 1)],
    [qw(CONFIG SET maxmemory 0)]);
passing('not enough replicas', [qw(CONFIG SET min-replicas-to-write 1)],
    [qw(CONFIG SET min-replicas-to-write 0)]);
passing('a replica', [REPLICAOF => '127.0.0.1', free_port()],
    [qw(REPLICAOF NO ONE)]);

$redis->stop;
wait_ok { post($ngx, '/raw/a', 'x')->status == 503 } 5,
    'Redis is away: 503';
refused(post($ngx, '/raw/a', 'x'), 503, 'Redis is away');
$redis->start;
wait_ok { post($ngx, '/raw/a', 'x')->status == 202 } 10,
    'Redis is back: 202';

# a Redis that has its own mind

my $fake = RT::FakeRedis->new(script => sub ($conn, @cmd) {
    return $conn->default(@cmd) if uc $cmd[0] ne 'XADD';
    my $mode = $conn->mode;
    return $conn->err($mode) if $mode =~ /^[A-Z]/;
    return if $mode eq 'silent';
    return $conn->close if $mode eq 'close';
    return $conn->raw($mode . "\r\n") if $mode =~ /^[:+\$*]/;
    $conn->bulk('1700000000000-7');
});
$ngx = RT::Nginx->new(
    redis => $fake,
    http  => 'rt_hub app { zone 8m; redis %%REDIS%%; source stream;'
           . ' redis_timeout 1s 500ms; redis_reconnect 10ms 100ms; }',
    server => 'location ~ ^/pub/(.*)$ { rt_publish app $1; }',
);
is(json(post($ngx, '/pub/a', 'x', headers => ['RT-Event' => 'e']))->{id},
    '1700000000000-7', 'as it should be');
is_deeply([$fake->commands(qr/^XADD/)],
    ['XADD a MAXLEN ~ 64 * data x event e'], 'by this command');

for my $case (
    ['NOPERM this user has no permissions', 502, undef],
    ['WRONGTYPE Operation against a key', 502, undef],
    ['ERR The ID specified in XADD is equal or smaller', 502, undef],
    ['LOADING Redis is loading the dataset in memory', 503, 1],
    ['MISCONF Redis is configured to save RDB snapshots', 503, 1],
    ['silent', 502, undef],
    ['close', 502, undef],
    [':1', 502, undef],
    ['+OK', 502, undef],
    ['$-1', 502, undef],
    ['*0', 502, undef],
) {
    my ($mode, $status, $after) = @$case;
    $fake->mode($mode);
    my $got = post($ngx, '/pub/a', 'x');
    refused($got, $status, "Redis: $mode");
    is(defined $got->header('Retry-After') ? 1 : undef, $after,
        "Redis: $mode: Retry-After");
    unlike($got->body, qr/NOPERM|TYPE|RDB/, 'its words stay inside');
    $fake->mode('');
    wait_ok { post($ngx, '/pub/a', 'x')->status == 202 } 5, 'then all is well';
}

done_testing;
