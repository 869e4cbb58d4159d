# t/unit: every program is a subtest here.  A sanitizer's report ends one
# with a status of its own.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

plan(skip_all => 'has sanitizers of its own') if asan();

my $make = 'make -s --no-print-directory -C ' . root() . '/t/unit';
my @names = split ' ', `$make list`;
plan(skip_all => 'no unit tests') if !@names;

my $out = `$make -j2 all 2>&1`;
is($?, 0, 'built') or diag($out);

for my $name (@names) {
    my $log = dir() . "/$name.log";
    my $pid = RT::spawn([root() . "/build/unit/$name"], out => $log);
    my $ended = RT::poll_until(sub { !RT::running($pid) }, 180);
    my $status = $?;
    RT::kill_group($pid) if !$ended;

    subtest $name => sub {
        my ($n, $plan) = 0;
        for (split /\n/, slurp($log)) {
            if (/^(not )?ok \d+ - (.*)/)  { ok(!$1, $2); $n++ }
            elsif (/^1\.\.(\d+)$/)        { $plan = $1 }
            else                          { diag(s/^# ?//r) }
        }
        is($plan, $n, 'ran to its end') if !defined $plan || $plan != $n;
        ok($ended && ($status == 0 || $status == 256),
            $ended ? "status $status" : 'in time')
            if !$ended || $status;
        plan(skip_all => 'has no checks') if !$n && $ended && !$status;
        Test::More::done_testing();
    };
}

done_testing;
