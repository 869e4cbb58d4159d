# RT-Poll-Interval: as often as the channel changes, between the bounds, and
# not the same for all.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use Time::HiRes qw(time sleep);

my $ngx = RT::Nginx->new(workers => 2, http => 'rt_hub app { zone 8m; }',
    server => <<'END');
    location ~ ^/rt/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_poll_interval 1s 4s;
    }
    location ~ ^/long/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_poll_interval 10s 40s;
    }
    location ~ ^/one/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_poll_interval 7s 7s;
    }
    location ~ ^/pub/(?<channel>.+)$ { rt_publish app $channel; }
END

sub interval ($path, %opt) {
    return get($ngx, $path, %opt)->header('RT-Poll-Interval');
}

# the values of some polls, each once
sub intervals ($path, $n = 40) {
    my %seen = map { interval($path) => 1 } 1 .. $n;
    my @seen = sort { $a <=> $b } keys %seen;
    return @seen;
}

my $etag = get($ngx, '/rt/none')->header('ETag');
like(interval('/rt/none'), qr/^[1-4]$/, '204: whole seconds');
my $r = get($ngx, '/rt/none', headers => ['If-None-Match' => $etag]);
is($r->status, 304, 'a 304');
like($r->header('RT-Poll-Interval'), qr/^[1-4]$/, 'has it, too');

# nothing known yet: between the bounds, and spread

my @seen = intervals('/long/cold');
cmp_ok($seen[0], '>=', 16, "cold: relaxed (@seen)");
cmp_ok($seen[-1], '<=', 24, 'but not as far as it goes');
cmp_ok(scalar @seen, '>=', 4, 'pollers spread');
is_deeply([intervals('/one/cold', 10)], [7], 'where there is no choice: none');

# a channel that changes often

my $end = time + 2;
my $publish = sub {
    post($ngx, '/pub/busy', 'x' . rand);
    sleep 0.1;
};
$publish->() while time < $end;
@seen = intervals('/rt/busy', 20);
cmp_ok($seen[-1], '<=', 2, "busy: the minimum, or a little more (@seen)");
@seen = intervals('/long/busy');
is($seen[0], 10, "within the location's bounds");
cmp_ok($seen[-1], '<=', 12, '(' . "@seen" . ')');
is((intervals('/rt/busy,none', 20))[0], 1, 'of several: the fastest');

# and goes quiet

my $quiet = time;
wait_ok { interval('/rt/busy') >= 3 } 10, 'quiet: it relaxes';
cmp_ok(time - $quiet, '>=', 1, 'not at once');
wait_ok { time - $quiet > 4.5 } 10, 'quiet for longer than the maximum';
@seen = intervals('/rt/busy', 30);
cmp_ok($seen[0], '>=', 3, "the maximum, or a little less (@seen)");
is($seen[-1], 4, 'not more');

# once a second: not each tenth, nor each 4 seconds

for (1 .. 6) {
    post($ngx, '/pub/steady', "m$_");
    sleep 1 if $_ < 6;
}
@seen = intervals('/rt/steady', 20);
cmp_ok($seen[-1], '<=', 2, "one second (@seen)");

# busy again

$publish->() for 1 .. 12;
wait_ok { interval('/rt/busy') <= 2 } 5, 'busy again: soon found';

done_testing;
