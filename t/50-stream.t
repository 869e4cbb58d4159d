# `source stream`: what entries become, whom they reach, by which ids.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use RT;
use Time::HiRes qw(time);

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
    rt_hub app  { zone 8m; redis %%REDIS%%; source stream; prefix s:;
                  message_max 64k; }
    rt_hub json { zone 8m; redis %%REDIS%%; source stream; payload json;
                  history 3; }
    rt_hub none { zone 8m; redis %%REDIS%%; source stream; prefix n:; }
END
    server => <<'END');
    rt_buffer 8m;       # none is too slow on a busy machine
    location ~ ^/rt/(?<channel>[\w,]+)$      { rt_subscribe app $channel; }
    location ~ ^/new/(?<channel>\w+)$        { rt_subscribe app $channel;
                                               rt_start new; }
    location ~ ^/history/(?<channel>[\w,]+)$ { rt_subscribe app $channel;
                                               rt_start history; }
    location ~ ^/json/(?<channel>\w+)$       { rt_subscribe json $channel; }
    location ~ ^/all/(?<channel>\w+)$        { rt_subscribe json $channel;
                                               rt_start history; }
    location = /status { rt_status json; }
END

sub hub ($name) {
    my $hubs = decode_json(get($ngx, '/status')->body)->{hubs};
    return (grep { $_->{name} eq $name } @$hubs)[0];
}

sub add ($key, @fields) { return $redis->cmd(XADD => $key, '*', @fields) }

# followed, and its version is certain
sub followed ($path) {
    return wait_for {
        my $r = get($ngx, $path);
        my $etag = $r->header('ETag') // return 0;
        return get($ngx, $path, headers => ['If-None-Match' => $etag])->status
            =~ /^(?:304)$/ || ($r->status == 204 && $r->header('ETag'));
    } 5, "$path is followed";
}

is(hub('app')->{source}, 'stream', 'the status names the source');

# a stream that is not there yet

my $sse = RT::SSE->new($ngx, '/rt/a');
wait_for { get($ngx, '/rt/a')->header('ETag') } 5, 'known to be empty';
is(get($ngx, '/rt/a')->status, 204, 'no stream: nothing is known');

my $id = add('s:a', data => 'hello');
my $e = $sse->event;
is_deeply([@$e{qw(data event id)}], ['hello', 'message', $id],
    'an entry is a message, its id the id');
my $r = get($ngx, '/rt/a');
is_deeply([$r->status, $r->body, $r->header('ETag')],
    [200, 'hello', qq{"$id"}], 'to a poll, too');
is(get($ngx, '/rt/a', headers => ['If-None-Match' => qq{"$id"}])->status, 304,
    'which has it then');

# forms

add('s:a', event => 'paid', data => 'x');
$e = $sse->event;
is_deeply([@$e{qw(data event)}], ['x', 'paid'], 'event is the event');
add('s:a', data => "two\nlines\r\n");
is($sse->event->{data}, "two\nlines\n", 'lines');
add('s:a', data => '');
is($sse->event->{data}, '', 'empty data');
my $binary = join '', map { chr } 0 .. 255;
$id = add('s:a', data => $binary);
$sse->event;
is(get($ngx, '/rt/a')->body, $binary, 'any bytes pass as they are');
add('s:a', temp => '21.5', "qu\"ote" => "\xff\x00");
is($sse->event->{data}, qq({"temp":"21.5","qu\\"ote":"\xef\xbf\xbd\\u0000"}),
    'without data: a JSON object of strings');

my $dropped = hub('app')->{messages}{dropped};
add('s:a', data => 'never', event => "a\nb");
add('s:a', data => 'never', event => 'rt.gap');
$id = add('s:a', data => 'after');
$e = $sse->event;
is_deeply([@$e{qw(data id)}], ['after', $id], 'bad events are dropped');
is(hub('app')->{messages}{dropped}, $dropped + 2, 'and counted');
ok($ngx->log(qr/message to "a" after \d+-\d+ dropped/), 'and told');

# ids that are not times

$redis->cmd(XADD => 's:id', '0-1', data => 'first');
my $other = RT::SSE->new($ngx, '/rt/id');
is($other->event->{id}, '0-1', 'the least id');
$redis->cmd(XADD => 's:id', '18446744073709551615-18446744073709551615',
    data => 'last');
is($other->event->{id}, '18446744073709551615-18446744073709551615',
    'the largest id');

# a cold channel

$id = add('s:cold', data => "m$_") for 1 .. 200;
$sse = RT::SSE->new($ngx, '/rt/cold');
$e = $sse->event;
is_deeply([@$e{qw(data id)}], ['m200', $id], 'rt_start latest, of a cold one');
my $history = RT::SSE->new($ngx, '/history/cold');
$history->expect(map { "m$_" } 137 .. 200);
my $new = RT::SSE->new($ngx, '/new/cold');
add('s:cold', data => 'm201');
$_->expect('m201') for $sse, $history, $new;

add('s:cold2', data => "m$_") for 1 .. 3;
$new = RT::SSE->new($ngx, '/new/cold2');
followed('/rt/cold2');
add('s:cold2', data => 'm4');
$new->expect('m4');

add('s:cold3', data => "m$_") for 1 .. 3;
RT::SSE->new($ngx, '/history/cold3')->expect(qw(m1 m2 m3));

# all of it deleted, but the stream is there

add('s:hollow', data => "m$_") for 1 .. 3;
$redis->cmd(XTRIM => 's:hollow', MAXLEN => 0);
followed('/rt/hollow');
is(get($ngx, '/rt/hollow')->status, 204, 'a hollow stream: nothing is known');
$sse = RT::SSE->new($ngx, '/rt/hollow');
add('s:hollow', data => 'm4');
$e = $sse->event;
is($e->{data} . $e->{event}, 'm4message', 'its next entry, without a gap');

# payload json

add('j', data => '{"data":{"a":1},"event":"e","version":"7"}');
$sse = RT::SSE->new($ngx, '/json/j');
$e = $sse->event;
is_deeply([@$e{qw(data event)}], ['{"a":1}', 'e'], 'the envelope');
add('j', data => '{"nothing":1}');
add('j', data => '{"data":"text"}', event => 'outer');
$e = $sse->event;
is_deeply([@$e{qw(data event)}], ['text', 'outer'], 'without an inner event');
add('j3', data => qq({"data":"m$_"})) for 1 .. 5;
RT::SSE->new($ngx, '/all/j3')->expect(qw(m3 m4 m5));

# several channels

add('s:x', data => 'x1');
add('s:y', data => 'y1');
wait_for { get($ngx, '/rt/x,y')->body =~ /x1.*y1|y1.*x1/ } 5,
    'both are known';
$r = get($ngx, '/rt/x,y');
is_deeply([sort map { "$_->{channel}=$_->{data}" } @{decode_json($r->body)}],
    ['x=x1', 'y=y1'], 'a poll of two');
$sse = RT::SSE->new($ngx, '/history/x,y');
is_deeply([sort map { $_->{data} } $sse->wait(2)], [qw(x1 y1)], 'SSE of two');
$id = add('s:y', data => 'y2');
like($sse->event->{id}, qr/\Q$id\E/, 'a cursor of two');

# a newcomer does not wait for a reader that waits for others

my $start = time;
for my $i (1 .. 8) {
    $new = RT::SSE->new($ngx, "/rt/newcomer$i");
    followed("/rt/newcomer$i");
    add("s:newcomer$i", data => $i);
    $new->expect($i);
}
cmp_ok(time - $start, '<', RT::scale(4), 'eight newcomers, one by one');

# a burst

$sse = RT::SSE->new($ngx, '/rt/burst');
followed('/rt/burst');
my $lots = 10_000;
my @ids = $redis->pipeline(map { [XADD => 's:burst', '*', data => "m$_"] }
    1 .. $lots);
my @got = $sse->wait($lots, 20);
is("@{[map { $_->{data} } @got]}", "@{[map { qq{m$_} } 1 .. $lots]}",
    "$lots at once: all in order");
is("@{[map { $_->{id} } @got]}", "@ids", 'by their ids');

# large ones, many at once: replies are cut, nothing is lost

$sse = RT::SSE->new($ngx, '/rt/large');
followed('/rt/large');
my @large = map { chr(ord('a') + $_ % 26) x (60_000 + $_) } 1 .. 100;
$redis->pipeline(map { [XADD => 's:large', '*', data => $_] } @large);
@got = map { $_->{data} } $sse->wait(scalar @large, 20);
my @bad = grep { ($got[$_] // '') ne $large[$_] } 0 .. $#large;
is(scalar @bad, 0, '100 of 60 KB: all in order') or diag(map {
    sprintf "%d: %.60s (%d)\n", $_, $got[$_] // 'nothing',
        length($got[$_] // '') } @bad);

is($redis->clients, 5,
    'a connection for each hub, and a reader where streams are asked for')
    or diag(join "\n", map { "$_->{id} $_->{cmd}" } $redis->clients);

is(hub('app')->{feed}{gaps}, 0, 'not one gap');
done_testing;
