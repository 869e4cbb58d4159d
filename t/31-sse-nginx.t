# Streams and polls among nginx's own: limit_rate, subrequests.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $ngx = RT::Nginx->new(workers => 1, http => <<'END', server => <<'END');
    rt_hub app { zone 8m; }
END
    location ~ ^/rt/(?<channel>[\w:.,-]+)$ { rt_subscribe app $channel; }
    location ~ ^/slow/(?<channel>[\w:.,-]+)$ {
        rt_subscribe app $channel;
        rt_heartbeat 10m;
        limit_rate 10k;
    }
    location = /publish { rt_publish app $arg_channel; }
    location = /page { ssi on; ssi_types *; alias %%DIR%%/page; }
    location = /auth { auth_request /rt/a; return 204; }
    location = /guarded { auth_request /rt/a; alias %%DIR%%/page; }
END
RT::spew($ngx->dir . '/page', 'before <!--#include virtual="/rt/a"--> after');

# limit_rate: slower, but it arrives

my $sse = RT::SSE->new($ngx, '/slow/s',
    headers => [Accept => 'text/event-stream']);
wait_for { $sse->wait(0, 0.1); defined $sse->last_id } 5, 'a place';
for my $n (1 .. 3) {
    is(post($ngx, '/publish?channel=s', "$n" x 9_000)->status, 202,
        'published');
    is(length(($sse->event(20) // {})->{data} // ''), 9_000,
        "message $n arrives under limit_rate");
}

# a subrequest is answered in full, and by a poll

is(post($ngx, '/publish?channel=a', 'inside')->status, 202, 'published');
my $etag = get($ngx, '/rt/a')->header('etag');

my $res = get($ngx, '/page', headers => ['If-None-Match' => $etag]);
is($res->status, 200, 'the page');
is($res->body, 'before inside after',
    "the main request's If-None-Match is not the include's");

$res = get($ngx, '/page', headers => [Accept => 'text/event-stream']);
is($res->body, 'before inside after', "nor is its Accept: the page ends");

is(get($ngx, '/guarded', headers => ['If-None-Match' => $etag])->status, 200,
    'auth_request');

done_testing;
