# Real EventSource, real fetch and the demo page, in Debian's Chromium, over
# the demo's own configuration.  What is checked is in t/browser/run.mjs.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

need(qw(node npm redis-cli redis-server));

my $chromium = $ENV{RT_CHROMIUM} // '/usr/bin/chromium';
plan(skip_all => "no $chromium") if !-x $chromium;

my $tests = root() . '/t/browser';

# the one thing from npm, at the version and digest of the lock file
if (!-d "$tests/node_modules/playwright-core") {
    my $log = dir() . '/npm.log';
    my $pid = RT::spawn(['npm', 'ci', '--prefix', $tests], out => $log);
    RT::poll_until(sub { !RT::running($pid) }, 120)
        // RT::kill_group($pid);
    if (!-d "$tests/node_modules/playwright-core") {
        diag(slurp($log));
        die "npm ci --prefix t/browser fails\n" if $ENV{CI};
        plan(skip_all => 'npm ci --prefix t/browser fails');
    }
}

# the demo's configuration as it is, but for how long things take
sub demo_conf ($redis) {
    my %fill = (
        MODULE     => RT::Nginx::module(),
        PREFIX     => '%%DIR%%',
        PORT       => '%%PORT%%',
        REDIS_PORT => $redis->port,
        WWW        => '%%ROOT%%/conf/www',
    );
    my $conf = slurp(root() . '/conf/demo.conf');
    $conf =~ s/^load_module.*$//m if $fill{MODULE} eq '';
    $conf =~ s/\@([A-Z_]+)\@/$fill{$1} \/\/ die "\@$1\@ in demo.conf\n"/ge;
    $conf =~ s{error_log .*;}{error_log %%DIR%%/logs/error.log notice;};
    $conf =~ s/(http \{\n)/$1    rt_drain 1s;\n    rt_retry 400ms;\n/;
    my $user = $> == 0 ? "user root;\n" : '';
    return "daemon off;\n$user$conf";
}

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(
    redis => $redis,
    conf  => demo_conf($redis),
    allow => [qr/exited on signal 9/],
);

my $out = dir() . '/browser.log';
my $node = RT::spawn(['node', "$tests/run.mjs"], out => $out, env => {
    RT_URL        => 'http://127.0.0.1:' . $ngx->port,
    RT_REDIS_PORT => $redis->port,
    RT_NGINX_PID  => $ngx->pid,
    RT_DIR        => dir(),
    RT_SCALE      => RT::scale(1),
    RT_CHROMIUM   => $chromium,
});
my $ended = RT::poll_until(sub { !RT::running($node) }, 300);
RT::kill_group($node) if !$ended;

my $done;
for my $line (split /\n/, slurp($out)) {
    if ($line =~ /^(not )?ok - (.*)/) { ok(!$1, $2) }
    elsif ($line =~ /^done - /)       { $done = 1 }
    else                              { diag($line =~ s/^# //r) }
}
ok($ended && $done, 'the browser tests ran to their end');

done_testing;
