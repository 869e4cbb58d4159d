package RT::Browser;

# Tests that are written in JavaScript: node runs a file of t/browser, whose
# lines are this test's results.
#
#     RT::Browser::need(chromium => 1);     # skips the whole test without node
#                                           # and what npm ci brings
#     RT::Browser::run('run.mjs', $ngx, $redis, seconds => 300,
#                      each => sub { ... });    # called all the while
#
# The environment of the file: see t/browser/harness.mjs.

use v5.36;
use RT ();

my $tests = RT::root() . '/t/browser';

sub _chromium { return $ENV{RT_CHROMIUM} // '/usr/bin/chromium' }

sub need (%opt) {
    RT::need(qw(node npm redis-cli redis-server));
    my $chromium = _chromium();
    RT::plan(skip_all => "no $chromium") if $opt{chromium} && !-x $chromium;

    # what comes from npm, at the versions and digests of the lock file
    my @missing = grep { !-d "$tests/node_modules/$_" }
        'playwright-core', '@tanstack/query-core';
    return if !@missing;
    my $log = RT::dir() . '/npm.log';
    my $pid = RT::spawn(['npm', 'ci', '--prefix', $tests], out => $log);
    RT::poll_until(sub { !RT::running($pid) }, 120)
        // RT::kill_group($pid);
    if (grep { !-d "$tests/node_modules/$_" } @missing) {
        RT::diag(RT::slurp($log));
        die "npm ci --prefix t/browser fails\n" if $ENV{CI};
        RT::plan(skip_all => 'npm ci --prefix t/browser fails');
    }
}

sub run ($file, $ngx, $redis, %opt) {
    my $out = RT::dir() . "/$file.log";
    my $node = RT::spawn(['node', "$tests/$file"], out => $out, env => {
        RT_URL        => 'http://127.0.0.1:' . $ngx->port,
        RT_REDIS_PORT => $redis->port,
        RT_NGINX_PID  => $ngx->pid,
        RT_DIR        => RT::dir(),
        RT_SCALE      => RT::scale(1),
        RT_CHROMIUM   => _chromium(),
    });
    my $ended = RT::poll_until(sub {
        $opt{each}->() if $opt{each};
        return !RT::running($node);
    }, $opt{seconds} // 300);
    RT::kill_group($node) if !$ended;

    my $done;
    for my $line (split /\n/, RT::slurp($out)) {
        if ($line =~ /^(not )?ok - (.*)/) { RT::ok(!$1, $2) }
        elsif ($line =~ /^done - /)       { $done = 1 }
        else                              { RT::diag($line =~ s/^# //r) }
    }
    RT::ok($ended && $done, "$file ran to its end");
}

1;
