# The recipe for TanStack Query, conf/www/tanstack.js and the lines of
# README.md, with its query-core in node against nginx and Redis.  What is
# checked is in t/browser/tanstack.mjs.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Browser;

RT::Browser::need();

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(
    redis   => $redis,
    workers => 2,
    http    => <<'END',
    rt_hub app { zone 8m; redis %%REDIS%%; subscribe q:* orders:*; }
    rt_poll_interval 1s 1s;
    log_format rt '$request_uri $status $rt_result';
    access_log %%DIR%%/logs/rt.log rt;
END
    server  => <<'END',
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location ~ ^/slow/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_poll_interval 3s 3s;
    }
    location ~ ^/slower/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_poll_interval 60s 60s;
    }
    location = /rt-status { rt_status json; access_log off; }
END
);

RT::Browser::run('tanstack.mjs', $ngx, $redis, seconds => 100);

my $log = slurp($ngx->dir . '/logs/rt.log');
my %results;
$results{"$1 $2"}++ while $log =~ m{^/rt/q:many (\d+) (\w+)$}mg;
is_deeply([sort keys %results], ['200 miss', '204 miss', '304 hit'],
    'nginx has seen nothing else');
is($results{'200 miss'}, 2, 'a body for each change alone');

done_testing;
