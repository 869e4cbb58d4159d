# The tests that drive nginx once more, with an nginx that has sanitizers and
# debug allocators, and the module linked in: "make asan".  What only it can
# do, workers that are killed in the middle of a write to the zone, is in
# t/92-faults.t.
#
# A report fails the test that provokes it, see RT::Nginx.  All that those
# tests leave is searched for one here as well.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Asan;
use File::Path qw(remove_tree);
use Time::HiRes qw(sleep time);

plan(skip_all => 'is running under it') if asan();
need(qw(make clang redis-server));

# the longest first: two at a time
my @files = qw(48-detached 20-feed 10-config 21-redis-faults 11-publish
    61-gate-doubt 22-patterns 38-wait 66-held 60-gate 45-stream-log
    47-detach-process 44-detach 12-status 67-sender 32-slow 31-sse-nginx
    33-resume 13-variables 30-poll-sse);

my $nginx = RT::Asan::build();
BAIL_OUT('no nginx with sanitizers') if !$nginx;

my %env = (RT::Asan::env($nginx), RT_KEEP => 1);

sub result ($name, $pid, $status, $took) {
    my $out = slurp(dir() . "/$name.out");
    my $kept = root() . "/build/t/$name-$pid";
    my @bad = RT::Asan::reports($kept);
    subtest "t/$name.t" => sub {
        my @failed = grep { /^\s*not ok|not within/ } split /\n/, $out;
        is($status, 0, 'passes') or diag(join "\n", @failed,
            substr $out, length $out > 4000 ? -4000 : 0);
        like($out, qr/^1\.\.[1-9]/m, 'has run');
        ok(-d $kept, 'has left its logs');
        is(scalar @bad, 0, 'no report') or diag(join "\n", @bad);
        note(sprintf '%d s', $took);
    } and remove_tree($kept);
}

my %running;
my @queue = @files;
while (@queue || %running) {
    while (@queue && keys %running < 2) {
        my $name = shift @queue;
        my $pid = RT::spawn(sub { chdir root(); exec $^X, "t/$name.t" },
            out => dir() . "/$name.out", env => \%env);
        $running{$name} = [$pid, time];
    }
    for my $name (keys %running) {
        my ($pid, $start) = @{$running{$name}};
        my $took = time - $start;
        my $late = $took > 400;
        next if !$late && RT::running($pid);
        my $status = $?;
        if ($late) {
            kill TERM => $pid;      # it ends its own
            RT::poll_until(sub { !RT::running($pid) }, 20);
            $status = 'does not end';
        }
        delete $running{$name};
        result($name, $pid, $status, $took);
    }
    sleep 0.05;
}

done_testing;
