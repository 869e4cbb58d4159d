# One URL, one cursor: poll and SSE on the embedded hub.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $ngx = RT::Nginx->new(workers => 2, http => <<'END', server => <<'END');
    rt_hub app { zone 8m; history 16; }
END
    location ~ ^/rt/(?<channel>[\w:.,-]+)$ { rt_subscribe app $channel; }
    location ~ ^/sse/(?<channel>[\w:.,-]+)$ {
        rt_subscribe app $channel;
        rt_transport sse;
        rt_start history;
        rt_heartbeat 100ms;
    }
    location = /arg { rt_subscribe app $arg_c; }
    location = /publish { rt_publish app $arg_channel; }
END

sub publish ($channel, $data) {
    my $res = post($ngx, "/publish?channel=$channel", $data);
    is($res->status, 202, "published to $channel");
}

sub etag ($res) { return $res->header('etag') }

# poll

my $res = get($ngx, '/rt/a');
is($res->status, 204, 'nothing known');
my $none = etag($res);
like($none, qr/^"[\w.-]+"$/, 'with an ETag');
is(get($ngx, '/rt/a', headers => [ 'If-None-Match' => $none ])->status, 304,
    'which is current');
is(get($ngx, '/rt/a', headers => [ 'If-None-Match' => '*' ])->status, 204,
    '* does not match nothing');

publish(a => 'one');

$res = get($ngx, '/rt/a', headers => [ 'If-None-Match' => $none ]);
is($res->status, 200, 'then there is something');
is($res->body, 'one', 'the message');
is($res->header('cache-control'), 'no-cache', 'Cache-Control');
like($res->header('rt-poll-interval'), qr/^\d+$/, 'RT-Poll-Interval');
my $one = etag($res);

for my $list ($one, "W/$one", qq("x", $one), '*') {
    is(get($ngx, '/rt/a', headers => [ 'If-None-Match' => $list ])->status,
        304, "304 for $list");
}

is(head($ngx, '/rt/a')->status, 200, 'HEAD');
is(get($ngx, "/arg?c=")->status, 400, 'a bad name');

# poll, then a stream from the poll's ETag

publish(a => $_) for 'two', 'three';

(my $cursor = $one) =~ s/"//g;
my $sse = RT::SSE->new($ngx, "/rt/a?last_event_id=$cursor",
    headers => [ Accept => 'text/event-stream' ]);
$sse->expect('two', 'three');
publish(a => 'four');
$sse->expect('four');
is($sse->header('content-type'), 'text/event-stream', 'Content-Type');

# and back: the stream's id is an ETag

is(get($ngx, '/rt/a', headers => [
        'If-None-Match' => '"' . $sse->last_id . '"' ])->status, 304,
    "the stream's id is current for a poll");

# payloads

for my $case (["a\n", "a\n"], ["x\rid: 9\ry", "x\nid: 9\ny"],
    ["l\r\nm", "l\nm"], ["", ""], ["\xef\xbb\xbfb", "\xef\xbb\xbfb"],
    ["x" x 200_000, "x" x 200_000])
{
    publish(a => $case->[0]);
    $sse->expect($case->[1]);
}

# history, heartbeat, unknown cursor

my $old = RT::SSE->new($ngx, '/sse/a');
is($old->event->{data}, 'one', 'rt_start history begins with the oldest');
$old->wait_comment;
ok($old->comments > 0, 'heartbeats');

my $lost = RT::SSE->new($ngx, '/rt/a',
    headers => [ Accept => 'text/event-stream', 'Last-Event-ID' => 'junk' ]);
is($lost->event->{event}, 'rt.gap', 'an unknown cursor gets a gap');

# several channels

publish(b => 'bee');
$res = get($ngx, '/rt/a,b');
is($res->status, 200, 'two channels');
like($res->body, qr/^\[\{"channel":"a".*\{"channel":"b".*"bee"\}\]$/s,
    'the latest of each, oldest first');
is(get($ngx, '/rt/a,b', headers => [ 'If-None-Match' => etag($res) ])
    ->status, 304, 'the set is current');
publish(a => 'again');
is(get($ngx, '/rt/a,b', headers => [ 'If-None-Match' => etag($res) ])
    ->status, 200, 'and no more when one of them changed');

done_testing;
