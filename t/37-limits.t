# Bounds and beginnings: how long, how many, from where, on which node.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use Time::HiRes qw(time);

my $redis = RT::Redis->new;
my $hub = <<'END';
    rt_hub mem { zone 8m; history 500; }
    rt_hub app { zone 8m; history 4; redis %%REDIS%%; }
    rt_stream_log %%DIR%%/logs/rt.log;
END
my $locations = <<'END';
    location ~ ^/mem/(?<channel>[^/]+)$ { rt_subscribe mem $channel; }
    location ~ ^/app/(?<channel>.+)$ { rt_subscribe app $channel; }
    location ~ ^/history/(?<channel>.+)$ {
        rt_start history; rt_subscribe mem $channel;
    }
    location ~ ^/new/(?<channel>.+)$ {
        rt_start new; rt_subscribe mem $channel;
    }
    location ~ ^/latest/(?<channel>.+)$ {
        rt_start latest; rt_subscribe mem $channel;
    }
    location ~ ^/life/(?<channel>.+)$ {
        rt_lifetime 1s; rt_subscribe mem $channel;
    }
    location ~ ^/max/(?<channel>.+)$ {
        rt_max_subscribers 3; rt_subscribe mem $channel;
    }
    location ~ ^/maxpage/(?<channel>.+)$ {
        rt_max_subscribers 3; rt_subscribe mem $channel;
        error_page 503 /full;
    }
    location ~ ^/maxapp/(?<channel>.+)$ {
        rt_max_subscribers 3; rt_subscribe app $channel;
    }
    location ~ ^/beat/(?<channel>.+)$ {
        rt_heartbeat 800ms; rt_subscribe mem $channel;
    }
    location ~ ^/quiet/(?<channel>.+)$ {
        rt_heartbeat 10m; rt_subscribe mem $channel;
    }
    location ~ ^/retry/(?<channel>.+)$ {
        rt_retry 4s; rt_subscribe mem $channel;
    }
    location = /arg { rt_subscribe mem $arg_c; }
    location = /pair { rt_subscribe mem $arg_c fixed; }
    location = /full { internal; return 200 "full\n"; }
    location = /publish { rt_publish mem $arg_channel; }
END
my @args = (redis => $redis, workers => 2, http => $hub, server => $locations);
my $ngx = RT::Nginx->new(@args);

sub publish ($channel, @data) {
    return map {
        my $r = post($ngx, "/publish?channel=$channel", $_);
        die "publish: " . $r->status . "\n" if $r->status != 202;
        $r->body =~ /"id":"([^"]+)"/ ? $1 : undef } @data;
}

sub stream ($path, %opt) { return RT::SSE->new($opt{on} // $ngx, $path, %opt) }

sub placed ($s) {
    wait_for { RT::SSE::pump(0.1, $s); $s->last_id ne '' } 5,
        "a place on $s->{path}";
    return $s;
}

sub told (@events) {
    return join ' ', map {
        $_->{event} eq 'rt.gap'
            ? 'gap:' . ($_->{data} =~ /"reason":"([^"]*)"/ ? $1 : '?')
            : $_->{data} } @events;
}

sub logged ($like, $name) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    wait_ok {
        grep { $_ =~ $like } split /\n/, slurp($ngx->dir . '/logs/rt.log')
    } 5, $name;
}

# rt_lifetime: 20 streams, each within 10%, with messages on their way

{
    publish(life => 0);
    my @s = map { stream('/life/life') } 1 .. 20;
    my $n = 1;
    RT::poll_until(sub {
        RT::SSE::pump(0.02, @s);
        publish(life => $n++) if $n < 400;
        @s == grep { $_->{done} } @s;
    }, 5);
    is(scalar(grep { $_->{done} } @s), 20, 'rt_lifetime: all have ended');
    logged(qr{ sse life \S+ \d+ \d+ lifetime$}, 'why, in rt_stream_log');
    my $all = wait_for {
        my @took = slurp($ngx->dir . '/logs/rt.log')
            =~ m{ sse life (\S+) \d+ \d+ lifetime$}mg;
        @took == 20 ? \@took : undef;
    } 5, 'all are logged';
    my @t = sort { $a <=> $b } @{$all // [0]};
    cmp_ok($t[0], '>=', 0.89, 'none before 90%');
    cmp_ok($t[-1], '<=', RT::scale(1.6), 'none long after 110%');
    cmp_ok($t[-1] - $t[0], '>=', 0.02, 'not all at once');
    is(scalar(grep { $_->clean } @s), 20, 'with the last chunk');
    my $bad = 0;
    for my $s (@s) {
        my @got = map { $_->{data} } $s->wait(10_000, 0);
        my $again = stream('/mem/life', last => $s->last_id);
        push @got, map { $_->{data} } $again->wait($n - @got);
        $again->close;
        # it began somewhere, went on without a hole, and is at the end
        $bad++ if join(' ', @got) ne join(' ', 0 .. $n - 1);
    }
    is($bad, 0, "they resume by their last id with nothing lost or twice");
    cmp_ok($n, '>', 5, 'there was something to lose');
}

# rt_max_subscribers: over both workers, by channel

for my $base ('/max', '/maxapp') {
    my $channel = 'full';
    my $path = "$base/$channel";
    my @s = map { placed(stream($path)) } 1 .. 3;
    wait_ok { my $r = stream($path); my $ok = $r->status == 503;
              $r->close; $ok } 5, "$path: the fourth is refused";
    my $r = get($ngx, $path, headers => [Accept => 'text/event-stream']);
    is($r->status, 503, 'by 503');
    like($r->header('Retry-After') // '', qr/^\d+$/, 'with Retry-After');
    is($r->header('ETag'), undef, 'and no ETag');
    like($r->body, qr/^[^\n]+\n\z/, 'one line says why');
    is(get($ngx, $path)->status, 204, 'a poll is none');
    is(head($ngx, $path, headers => [Accept => 'text/event-stream'])->status,
        503, 'HEAD tells the same');
    my $other = stream("$base/other");
    is($other->status, 200, 'nor is another channel');
    $other->close;
    is(get($ngx, "$base/other,$channel",
        headers => [Accept => 'text/event-stream'])->status, 503,
        'of several, one that is full is enough');
    for my $end (qw(close reset)) {
        (shift @s)->$end;
        my $new;
        wait_ok {
            $new = stream($path);
            $new->status == 200 || ($new->close, 0)[1];
        } 5, "freed by a $end";
        push @s, $new;
        is(get($ngx, $path, headers => [Accept => 'text/event-stream'])
            ->status, 503, 'then full again');
    }
    $_->close for @s;
    wait_ok { @s = map { stream($path) } 1 .. 3;
              my $n = grep { $_->status == 200 } @s;
              $_->close for @s;
              $n == 3 } 5, 'all are free again';
}
{
    my @s = map { placed(stream('/maxpage/page')) } 1 .. 3;
    my $r = get($ngx, '/maxpage/page',
        headers => [Accept => 'text/event-stream']);
    is($r->status . $r->body, "503full\n", 'error_page 503');
    like($r->header('Retry-After') // '', qr/^\d+$/, 'with Retry-After');
    $_->close for @s;
}

# rt_heartbeat

{
    my $s = placed(stream('/beat/beat'));
    my $quiet = placed(stream('/quiet/beat'));
    my $from = time;
    $s->wait_comment for 1 .. 3;
    my @at = $s->comments;
    is(scalar @at, 3, 'rt_heartbeat: comments');
    cmp_ok($at[2] - $at[0], '>=', 1.5, 'not more often than told');
    cmp_ok($at[2] - $at[0], '<=', RT::scale(3.2), 'nor less');
    my $before = $s->comments;
    my $end = time + 2;
    my $n = 0;
    while (time < $end) {
        publish(beat => ++$n);
        $s->event(0.1);
        RT::SSE::pump(0.1, $s);
    }
    cmp_ok($n, '>', 4, 'messages');
    cmp_ok($s->comments - $before, '<=', 1, 'are heartbeats enough');
    my $last = time;
    $s->wait_comment;
    cmp_ok(time - $last, '>=', 0.5, 'the next is a whole while after the last');
    is(scalar $quiet->comments, 0, 'another location has its own');
    $_->close for $s, $quiet;
}

# rt_retry

{
    my %seen;
    for (1 .. 50) {
        my $s = stream('/retry/r');
        wait_for { RT::SSE::pump(0.1, $s); defined $s->retry } 5, 'retry';
        $seen{$s->retry}++;
        $s->close;
    }
    my @r = sort { $a <=> $b } keys %seen;
    cmp_ok($r[0], '>=', 2000, 'rt_retry: none under 50%');
    cmp_ok($r[-1], '<=', 6000, 'none over 150%');
    cmp_ok(scalar @r, '>', 25, 'hardly two alike');
    cmp_ok($r[-1] - $r[0], '>', 1000, 'far apart');
}

# rt_start

my @id = publish(p => 'p1');
publish(q => 'q1');
publish(p => 'p2');
publish(q => 'q2', 'q3');
for my $case (['/latest/p', 'p2'], ['/history/p', 'p1 p2'], ['/new/p', ''],
    ['/latest/p,q', 'p2 q3'], ['/history/p,q', 'p1 q1 p2 q2 q3'],
    ['/new/p,q', ''], ['/latest/q,p', 'p2 q3'], ['/latest/none', ''],
    ['/history/none', ''], ['/new/none', ''], ['/latest/none,q', 'q3'],
    ['/new/q,none', ''], ['/mem/p', 'p2'])
{
    my ($path, $want) = @$case;
    my $s = stream($path);
    my @want = split / /, $want;
    my @got = $s->wait(scalar @want);
    is(told(@got), $want, "rt_start: $path");
    is($s->status, 200, 'is open');
    placed($s);
    is(scalar(() = $s->wait(10, 0)), 0, 'and nothing more');
    $s->close;
}
{
    # a client with a cursor is not begun anew, one with a strange one is told
    is(told(stream("/$_/p", last => $id[0])->wait(1)), 'p2', "$_ with a cursor")
        for qw(latest history new);
    is(told(stream('/latest/p', last => 'x')->wait(2)),
        'gap:unknown cursor p2', 'latest after a gap');
    is(told(stream('/history/p', last => 'x')->wait(3)),
        'gap:unknown cursor p1 p2', 'history after a gap');
    my $s = stream('/new/p', last => 'x');
    is(told($s->wait(1)), 'gap:unknown cursor', 'new after a gap');
    my $two = stream('/latest/p,q', last => 'x');
    is(told($two->wait(4)),
        'gap:unknown cursor gap:unknown cursor p2 q3', 'one gap per channel');
    my $new = stream('/new/p,q');
    placed($new);
    publish(p => 'p3');
    publish(q => 'q4');
    is(told($s->wait(1)), 'p3', 'new: what comes then');
    is(told($new->wait(2)), 'p3 q4', 'of both');
    is(told(stream('/new/p', last => 'x', headers => [])->wait(1)),
        'gap:unknown cursor', 'and no more');
}

# names of channels, numbers of them

my $long = 'x' x 255;
is(get($ngx, "/mem/$long")->status, 204, 'a name of 255 bytes');
for my $case (['256 bytes', "/mem/${long}x"], ['a space', '/mem/a%20b'],
    ['LF', '/mem/a%0Ab'], ['DEL', '/mem/%7F'], ['ESC', '/mem/%1Ba'],
    ['tab', '/mem/%09'], ['an empty one', '/mem/a,,b'], ['a comma', '/mem/,'],
    ['at the end', '/mem/a,'], ['an empty variable', '/arg'],
    ['another', '/arg?c='], ['one of two', '/pair?c='],
    ['33', '/mem/' . join ',', 1 .. 33])
{
    my ($name, $path) = @$case;
    for my $accept ('*/*', 'text/event-stream') {
        my $c = RT::HTTP->new($ngx);
        $c->send(GET => $path, headers => [Accept => $accept]);
        my $r = $c->read;
        is($r->status, 400, "$name: 400 for $accept");
        like($r->body, qr/^[\x20-\x7e]+\n\z/, 'one line');
        like($r->header('Content-Type'), qr{^text/plain\b}, 'of text');
        is($r->header('ETag'), undef, 'no ETag');
        $c->send(HEAD => $path);
        is($c->read->status, 400, 'HEAD too');
        $c->close;
    }
}
publish(1 => 'first');
publish(32 => 'last');
my $many = join ',', 1 .. 32;
get($ngx, "/mem/$many");            # makes those that are new
my $r = get($ngx, "/mem/$many");
is($r->status, 200, '32 channels');
is(scalar(() = $r->body =~ /"channel"/g), 2, 'those known');
is(get($ngx, "/mem/$many", headers => ['If-None-Match' => $r->header('ETag')])
    ->status, 304, 'their ETag');
my $s32 = stream("/mem/$many");
is(told($s32->wait(2)), 'first last', 'as a stream');
publish(17 => 'mid');
is(told($s32->wait(1)), 'mid', 'live');
is(get($ngx, "/mem/$many,1,1,2")->status, 200, 'one twice counts once');

# poll, publish, stream from the poll's ETag: each exactly once

for my $n (1 .. 10) {
    publish("pps$n" => 'before');
    my $r = get($ngx, "/mem/pps$n");
    my $cursor = $r->header('ETag') =~ s/"//gr;
    my @want = map { "m$_" } 1 .. $n;
    publish("pps$n" => @want);
    my $s = stream("/mem/pps$n?last_event_id=$cursor");
    publish("pps$n" => 'after');
    is(told($s->wait(@want + 1)), "@want after", "poll, $n messages, stream");
    is(scalar(() = $s->wait(1, 0.02)), 0, 'nothing twice');
    $s->close;
}
{
    my $cursor = get($ngx, '/mem/first,second')->header('ETag') =~ s/"//gr;
    publish(second => 's1');
    publish(first => 'f1');
    my $s = stream("/mem/first,second?last_event_id=$cursor");
    is(told($s->wait(2)), 's1 f1', 'from the ETag of a 204 of two');
    my $r = get($ngx, '/mem/first,second');
    publish(first => 'f2');
    $s = stream('/mem/first,second', last => $r->header('ETag') =~ s/"//gr);
    is(told($s->wait(1)), 'f2', 'and of a 200');
}

# another node of the same Redis

my $two = RT::Nginx->new(@args);
for my $node ($ngx, $two) {
    get($node, '/app/n');
    get($node, '/app/n,o');
}
$redis->wait_sub($_, 2) for 'n', 'o';

sub both ($channel, $data) {
    $redis->publish($channel, $data);
    for my $node ($ngx, $two) {
        wait_for { (get($node, "/app/$channel")->body // '') eq $data } 5,
            "$data is on both nodes";
    }
}

my $nothing = get($ngx, '/app/n')->header('ETag');
is(get($two, '/app/n', headers => ['If-None-Match' => $nothing])->status, 204,
    "a 204's ETag is this node's alone");
both(n => 'n1');
both(o => 'o1');
my %etag = map { $_ => get($ngx, "/app/$_")->header('ETag') } 'n', 'n,o';
for my $path ('n', 'n,o') {
    is(get($two, "/app/$path", headers => ['If-None-Match' => $etag{$path}])
        ->status, 304, "$path: the ETag of one node is current on another");
}
my $etag2 = get($two, '/app/n')->header('ETag');
isnt($etag2, $etag{n}, 'though their texts differ');
is(get($ngx, '/app/n', headers => ['If-None-Match' => $etag2])->status, 304,
    'and back');
is(get($two, '/app/o', headers => ['If-None-Match' => $etag{n}])->status, 200,
    'not for another channel');
both(n => 'n2');
is(get($two, "/app/$_", headers => ['If-None-Match' => $etag{$_}])
    ->status, 200, "$_: not once it has changed") for 'n', 'n,o';

my $sse = stream('/app/n');
is(told($sse->wait(1)), 'n2', 'a stream on one node');
my $at = $sse->last_id;
$sse->close;
both(n => 'n3');
both(n => 'n4');
$sse = stream('/app/n', on => $two, last => $at);
is(told($sse->wait(2)), 'n3 n4', 'goes on at the other');
$redis->publish(n => 'n5');
is(told($sse->wait(1)), 'n5', 'live');
$sse->close;
both(n => "n$_") for 6 .. 9;            # history 4: 2 is forgotten
$sse = stream('/app/n', on => $two, last => $at);
my @got = $sse->wait(2);
is($got[0]{event}, 'rt.gap', 'past the history it is a gap');
is(told(@got[1 .. $#got]), 'n9', 'then what rt_start says');
$sse->close;
$sse = stream('/app/n,o', on => $two,
    last => get($ngx, '/app/n,o')->header('ETag') =~ s/"//gr);
$redis->publish(o => 'o2');
@got = $sse->wait(1);
is(told(@got), 'o2', 'of two channels');
$sse->close;

# repeats rather than loses: equal content twice
both(n => 'same');
$at = get($ngx, '/app/n')->header('ETag') =~ s/"//gr;
both(n => 'other');
$redis->publish(n => 'same');
wait_for { $two && (get($two, '/app/n')->body eq 'same') } 5, 'the second';
both(n => 'end');
$sse = stream('/app/n', on => $two, last => $at);
my $told = told($sse->wait(3, 0.5));
like($told, qr/^(?:other same end|gap:.* end|.*other same end)$/,
    "loses nothing: $told");
$sse->close;

done_testing;
