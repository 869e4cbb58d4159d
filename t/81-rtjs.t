# conf/www/rt.js in Debian's Chromium: polls, moves to a stream and back,
# behind proxies that block streams, in hidden tabs, over a restart of nginx.
# What is checked is in t/browser/rtjs.mjs.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Browser;

# small enough to be on every page
my $size = length `gzip -9 < '${\root()}/conf/www/rt.js'`;
cmp_ok($size, '>', 500, 'rt.js is there');
cmp_ok($size, '<=', 3000, "and at most 3 KB, gzipped: $size");

RT::Browser::need(chromium => 1);

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(
    redis   => $redis,
    workers => 2,
    http    => <<'END',
    types { text/html html; text/css css; text/javascript js;
            image/svg+xml svg; }
    charset utf-8;
    rt_hub mem { zone 8m; }
    rt_hub app { zone 8m; redis %%REDIS%%; subscribe r*; }
    rt_hub log { zone 8m; redis %%REDIS%%; source stream; prefix s:; }
    rt_poll_interval 1s 1s;
    rt_advise viewers=50 interval=1ms;
    rt_retry 300ms;
    rt_drain 100ms;
END
    server  => <<'END',
    root %%ROOT%%/conf/www;
    location / {
        add_header Content-Security-Policy "default-src 'self'";
    }
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe mem $channel; }
    location ~ ^/slow/(?<channel>.+)$ {
        rt_subscribe mem $channel; rt_poll_interval 60s 60s;
    }
    location ~ ^/many/(?<channel>.+)$ {
        rt_subscribe mem $channel; rt_event channel;
        default_type application/json;
    }
    location ~ ^/pub/(?<channel>.+)$ { rt_subscribe app $channel; }
    location ~ ^/stream/(?<channel>.+)$ { rt_subscribe log $channel; }
    location = /publish { rt_publish mem $arg_channel; }
    location = /rt-status { rt_status json; }
    location = /favicon.ico { return 204; }
END
);

# what the file asks of nginx, as it can't start it
my $served = 0;
sub serve {
    my ($n, $what) = split ' ', slurp(dir() . '/command') or return;
    return if $n <= $served;
    $served = $n;
    $what eq 'stop' ? $ngx->stop : $ngx->start;
    RT::spew(dir() . '/answer.new', $n);
    rename dir() . '/answer.new', dir() . '/answer';
}

RT::Browser::run('rtjs.mjs', $ngx, $redis, each => \&serve);

done_testing;
