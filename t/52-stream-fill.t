# What clients missed so long ago that the zone has it no more comes from the
# stream itself: all of it, in order, once, or there is a gap.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use JSON::PP qw(decode_json);

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 1, http => <<'END',
    rt_hub app { zone 16m; redis %%REDIS%%; source stream; prefix s:;
                 history 5; message_max 20k; redis_timeout 1s 1s;
                 redis_reconnect 20ms 50ms; }
    rt_hub patient { zone 16m; redis %%REDIS%%; source stream; prefix s:;
                     history 5; redis_timeout 5s 20s; }
END
    server => <<'END', allow => [qr/\[error\].*rt_hub/]);
    location ~ ^/rt/(?<channel>[\w,]+)$   { rt_subscribe app $channel; }
    location ~ ^/slow/(?<channel>[\w,]+)$ { rt_subscribe app $channel;
                                            rt_buffer 4k; }
    location ~ ^/big/(?<channel>\w+)$     { rt_subscribe app $channel;
                                            rt_buffer 16m; }
    location ~ ^/late/(?<channel>\w+)$    { rt_subscribe patient $channel; }
    rt_drain 1s;
    location ~ ^/pub/(?<channel>\w+)$     { rt_publish app $channel; }
END

sub add ($key, @data) {
    return $redis->pipeline(map { [XADD => "s:$key", '*', data => $_] } @data);
}

sub stream ($path, $id = undef, %opt) {
    return RT::SSE->new($ngx, $path, %opt, defined $id ? (last => $id) : ());
}

sub told (@events) {
    return join ' ', map {
        $_->{event} eq 'rt.gap'
            ? 'gap:' . ($_->{data} =~ /"reason":"([^"]*)"/ ? $1 : '?')
            : $_->{data} } @events;
}

# how often Redis has run a command
sub calls ($name) {
    my $info = $redis->cmd(INFO => 'commandstats');
    return $info =~ /^cmdstat_\Q$name\E:calls=(\d+)/m ? $1 : 0;
}

# the channel is followed up to this entry
sub followed ($path, $id) {
    return wait_for {
        get($ngx, $path, headers => ['If-None-Match' => qq("$id")])->status
            == 304
    } 5, "$path is followed";
}

sub is_told ($got, $expected, $name) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is($got =~ s/(.{400}).*/$1.../r, $expected =~ s/(.{400}).*/$1.../r, $name)
        && $got ne $expected
        && fail("$name: beyond the first 400 characters");
}

# more than a portion

my @id = add(a => map { "m$_" } 1 .. 300);
my $sse = stream('/rt/a', $id[0]);
my @got = $sse->wait(299);
is_told(told(@got), told(map { { event => '', data => "m$_" } } 2 .. 300),
    'all since the first one, in order, once');
is_told(join(' ', map { $_->{id} } @got), "@id[1 .. 299]", 'by their ids');
add(a => 'm301');
is(told($sse->wait(1)), 'm301', 'then it is live');

for my $n (0, 98, 99, 100, 197, 198, 199, 293, 294) {
    my @got = stream('/rt/a', $id[$n])->wait(300 - $n);
    is_told(told(@got), join(' ', map { "m$_" } $n + 2 .. 301),
        "from entry $n");
}
stream('/rt/a', $id[299])->expect('m301');

my @whole = stream('/rt/a', '0-0')->wait(301);
is_told(told(@whole), join(' ', map { "m$_" } 1 .. 301),
    '0-0 of a whole stream: no gap');

# an event, and an object of fields

my ($first) = add(forms => 'x');
$redis->cmd(XADD => 's:forms', '*', event => 'e1', data => "two\nlines");
$redis->cmd(XADD => 's:forms', '*', a => '1', b => "\xff");
add(forms => 1 .. 5);
my @forms = stream('/rt/forms', $first)->wait(7);
is_deeply([map { "$_->{event}:$_->{data}" } @forms[0, 1]],
    ["e1:two\nlines", qq(message:{"a":"1","b":"\xef\xbf\xbd"})],
    'events and objects');

# what is not there any more

$redis->cmd(XTRIM => 's:a', MAXLEN => 50);
my $trimmed = stream('/rt/a', $id[100]);
is_told(told($trimmed->wait(51)),
    'gap:expired ' . join(' ', map { "m$_" } 252 .. 301),
    'trimmed away: a gap, then the rest of the stream');
my $last = $trimmed->last_id;
$trimmed->close;
is_told(told(stream('/rt/a', '0-0')->wait(51)),
    'gap:expired ' . join(' ', map { "m$_" } 252 .. 301),
    '0-0 of a trimmed stream: a gap');
is_told(told(stream('/rt/a', $id[251])->wait(49)),
    join(' ', map { "m$_" } 253 .. 301), 'of one that is left: none');
$sse = stream('/rt/a', $last);
$sse->none(0.2);

# a gap's id is a cursor from which nothing is repeated or lost

my $gap = stream('/rt/a', $id[100]);
my $mark = ($gap->wait(1))[0]{id};
is_told(told(stream('/rt/a', $mark)->wait(50)) =~ s/gap:expired //r,
    join(' ', map { "m$_" } 252 .. 301), 'from the gap on');

# another life

@id = add(life => map { "old$_" } 1 .. 20);
$sse = stream('/rt/life', $id[3]);
is(scalar(@got = $sse->wait(16)), 16, 'one life');
$sse->close;
$redis->cmd(DEL => 's:life');
add(life => map { "new$_" } 1 .. 20);
my @new = stream('/rt/life', $id[3])->wait(21);
like(told(@new), qr/\Agap:\w+ /, 'deleted and new: a gap');
is(told(@new) =~ s/gap:\w+ //gr, join(' ', map { "new$_" } 1 .. 20),
    'then the new one');

# too large, of no use, cut

my $before = $id[3];
@id = add(large => 1 .. 3);
add(large => 'x' x 30_000);
add(large => 4 .. 6);
$redis->cmd(XADD => 's:large', '*', map { ("f$_", $_) } 1 .. 2_000);
add(large => 7);
$redis->cmd(XADD => 's:large', '*', map { ("f$_", 'x' x 10_000) } 1 .. 500);
$redis->cmd(XADD => 's:large', '*', map { ("f$_", 'x' x 10_000) } 1 .. 400);
add(large => 8 .. 15);
is(told(stream('/rt/large', $id[0])->wait(18)),
    '2 3 gap:message too large 4 5 6 gap:message too large 7 '
    . 'gap:message too large gap:message too large 8 9 10 11 12 13 14 15',
    'too large ones in between');

@id = add(bad => 'a');
$redis->pipeline(map { [XADD => 's:bad', '*', data => 'x', event => 'rt.x'] }
    1 .. 250);
add(bad => 'b');
$redis->pipeline(map { [XADD => 's:bad', '*', data => 'x', event => 'rt.x'] }
    1 .. 3);
add(bad => map { "c$_" } 1 .. 5);
is(told(stream('/rt/bad', $id[0])->wait(6)), 'b c1 c2 c3 c4 c5',
    'hundreds that are no messages');
my @bad = $redis->pipeline(map { [XADD => 's:bad', '*', data => 'x',
    event => 'rt.x'] } 1 .. 120);
$sse = stream('/rt/bad', $id[0]);
is(told($sse->wait(6)), 'b c1 c2 c3 c4 c5', 'and at the end');
my $calls = calls('xrange');
$sse->none(0.3);
cmp_ok(calls('xrange') - $calls, '<', 10, 'is not asked again and again');
add(bad => 'd');
is(told($sse->wait(1)), 'd', 'and goes on');
$sse->close;

my @large = map { sprintf('%03d', $_) . chr(97 + $_ % 26) x 19_000 } 1 .. 200;
@id = add(cut => 'first', @large);
my @cut = map { $_->{data} } stream('/big/cut', $id[0])->wait(200, 10);
is(scalar(grep { $cut[$_] ne $large[$_] } 0 .. $#large), 0,
    '200 of 19 KB: portions that are cut lose nothing');

# fields that are of no use cost as well

sub junk ($n, $data) {
    return $redis->cmd(XADD => 's:junk', '*',
        (map { ("j$_", 'j' x 10_000) } 1 .. $n), data => $data);
}

@id = map { junk(@$_) } [100, 'a'], [50, 'b'], [100, 'c'], [100, 'd'];
add(junk => map { "e$_" } 1 .. 5);
is(told(stream('/rt/junk', $id[0])->wait(8)), 'b c d e1 e2 e3 e4 e5',
    'an entry that fills a reply hides none');

# two hundred clients come while Redis is busy, those that miss least first

@id = add(crowd => map { "m$_" } 1 .. 1000);
followed('/late/crowd', $id[-1]);
my (@crowd, @told);
$calls = calls('xrange');
$redis->pause;
for my $i (reverse 0 .. 199) {
    $crowd[$i] = RT::SSE->new($ngx, '/late/crowd', last => $id[400 + 3 * $i],
        keep_raw => 0,
        on_event => sub ($sse, $event) { push @{$told[$i]}, $event->{data} });
}
$redis->resume;
wait_ok {
    RT::SSE::pump(0.05, @crowd);
    !grep { @{$told[$_] // []} < 599 - 3 * $_ } 0 .. 199;
} 20, '200 clients with cursors of their own';
is(scalar(grep { "@{$told[$_]}" ne join ' ', map { "m$_" } 402 + 3 * $_ .. 1000 }
    0 .. 199), 0, 'each gets what it missed, in order, once');
$calls = calls('xrange') - $calls;
diag("200 clients, 600 entries: $calls XRANGE");
cmp_ok($calls, '<=', 15, 'Redis was asked by the portion, not by the client');
$_->close for @crowd;

# several channels, one of them old

my @x = add(x => map { "x$_" } 1 .. 20);
my @y = add(y => map { "y$_" } 1 .. 20);
my $two = stream('/rt/x,y');
wait_for { RT::SSE::pump(0.05, $two); $two->last_id =~ /,\d/ } 5, 'a place';
my $cursor = $two->last_id =~ s/\.\d+-\d+,/.$x[2],/r;
$two->close;
is(told(stream('/rt/x,y', $cursor)->wait(17)),
    join(' ', map { "x$_" } 4 .. 20), 'of two channels, the one that is old');

# publishing goes on beside it, over the same connection

@id = add(busy => map { "m$_" } 1 .. 2000);
followed('/rt/busy', $id[-1]);
my @busy = map { stream('/rt/busy', $id[$_]) } 0 .. 9;
my @posted = map { post($ngx, '/pub/other', $_) } 1 .. 20;
is(scalar(grep { $_->status == 202 && $_->body =~ /"id":"\d+-\d+"/ } @posted),
    20, 'published meanwhile');
is_told(told($busy[$_]->wait(1999 - $_)),
    join(' ', map { "m$_" } $_ + 2 .. 2000), "and filled, $_") for 0 .. 9;
$_->close for @busy;

# a client that does not read, beside one that does

my @kb = map { sprintf('%05d', $_) . 'x' x 1_000 } 1 .. 3000;
@id = add(slow => 'first', @kb);
followed('/rt/slow', $id[-1]);
my ($worker) = $ngx->workers;
my $rss = $ngx->rss($worker);
my $slow = stream('/slow/slow', $id[0], rcvbuf => 4096);
my $fast = stream('/slow/slow', $id[0]);
@got = map { $_->{data} } $fast->wait(3000, 10);
is(scalar(grep { $got[$_] ne $kb[$_] } 0 .. $#kb), 0, 'who reads gets all');
cmp_ok($ngx->rss($worker) - $rss, '<', 3000,
    'what the other does not take is not held');
add(slow => 'live');
is(told($fast->wait(1)), 'live', 'and what is new');
@got = map { $_->{data} } $slow->wait(3001, 20);
is(scalar(grep { $got[$_] ne ($kb[$_] // 'live') } 0 .. $#kb + 1), 0,
    'who begins late to read gets all as well, in order, once');
ok(!$slow->ended(0.1), 'and stays');

# it leaves in the middle

$slow = stream('/slow/slow', $id[0], rcvbuf => 4096);
$slow->reset;
$fast->close;

# Redis stops

@id = add(stop => map { "m$_" } 1 .. 30);
followed('/rt/stop', $id[-1]);
$redis->pause;
my $stop = stream('/rt/stop', $id[3]);
my @stop = $stop->wait(6, 5);
is(told(@stop), 'gap:expired m26 m27 m28 m29 m30',
    'Redis says nothing: a gap, then what the zone has');
$redis->resume;
wait_for { post($ngx, '/pub/other', 'x')->status == 202 } 10, 'Redis is back';
add(stop => 'm31');
is(told($stop->wait(1, 10)), 'm31', 'and the stream goes on');
is_told(told(stream('/rt/stop', $id[3])->wait(27)),
    join(' ', map { "m$_" } 5 .. 31), 'another client is filled again');

# Redis away altogether

@id = add(away => map { "m$_" } 1 .. 30);
followed('/rt/away', $id[-1]);
$redis->stop;
is(told(stream('/rt/away', $id[3])->wait(6)),
    'gap:expired m26 m27 m28 m29 m30', 'Redis is away: a gap at once');
$redis->start;
wait_for { post($ngx, '/pub/other', 'x')->status == 202 } 10, 'Redis is back';

# a user who may not

@id = add(acl => map { "m$_" } 1 .. 30);
followed('/rt/acl', $id[-1]);
$redis->cmd(ACL => SETUSER => 'default', '-multi');
is(told(stream('/rt/acl', $id[3])->wait(6)),
    'gap:expired m26 m27 m28 m29 m30', 'MULTI denied: a gap');
ok($ngx->log(qr/what clients of "acl" missed can't be read: Redis says "NOPERM/),
    'the log says why');
is(post($ngx, '/pub/other', 'x')->status, 202, 'publishing works on');
$redis->cmd(ACL => SETUSER => 'default', '+multi');
is_told(told(stream('/rt/acl', $id[3])->wait(26)),
    join(' ', map { "m$_" } 5 .. 30), 'allowed again');

# a worker that quits in the middle of it

@id = add(quit => 'first', @kb);
followed('/rt/quit', $id[-1]);
my @quit = map { stream('/slow/quit', $id[0], rcvbuf => 4096) } 1 .. 5;
$ngx->reload(server => $ngx->{args}{server});
wait_ok { !$ngx->old_workers } 10, 'a worker quits while it fills';
$_->close for @quit;

done_testing;
