package RT;

# The test library of ngx_rt: core Perl only.
#
#     use v5.36;
#     use lib 't/lib';
#     use RT;                        # Test::More comes along
#
#     my $redis = RT::Redis->new;    # a private redis-server
#     my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
#         rt_hub app { redis %%REDIS%%; }
#     END
#     server => <<'END');
#         location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
#     END
#
#     is(get($ngx, '/rt/a')->status, 204, 'nothing known');
#     my $sse = RT::SSE->new($ngx, '/rt/a');
#     $redis->publish(a => 'hello');
#     is($sse->event->{data}, 'hello', 'arrives');
#
#     done_testing;      # RT's own: first stops every nginx and asserts that
#                        # it ended cleanly, see RT::Nginx
#
# Everything is under build/t/NAME-PID/, removed when the test passes.  All
# deadlines are in seconds and stretched by RT::scale() under a sanitizer.
# Nothing sleeps for a fixed time: wait_for polls.
#
# Exported:
#     wait_for { COND } SECONDS, WHAT    COND's value; a failed test if it
#                                        does not become true in time
#     wait_ok { COND } SECONDS, WHAT     the same, and a passed one if it does
#     stays { COND } SECONDS, WHAT       a test: COND holds all that time
#     get, head, post, request, curl     RT::HTTP
#     free_port                          a TCP port kept for this process
#     nginx_t(%args)                     (accepted, output) of nginx -t; takes
#                                        what RT::Nginx->new takes
#     root, dir                          the checkout; this test's directory
#     slurp(FILE)                        its bytes, '' if there is no such file
#     asan                               true when nginx has sanitizers in it
#     need(PROGRAM...)                   skips the whole test without them
#
# Environment: RT_NGINX (binary, default nginx in PATH), RT_MODULE (the .so,
# default build/ngx_http_rt_module.so; empty: linked in statically),
# RT_SCALE (factor of deadlines), RT_KEEP=1 (directories are kept).

use v5.36;
use Cwd qw(abs_path);
use Exporter qw(import);
use Fcntl qw(:flock O_CREAT O_RDWR);
use File::Basename qw(basename dirname);
use File::Path qw(make_path remove_tree);
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);
use Socket qw(SOMAXCONN);
use Test::More ();
use Time::HiRes qw(sleep time);

our @EXPORT = (@Test::More::EXPORT, qw(
    wait_for wait_ok stays get head post request curl free_port nginx_t root
    dir slurp asan need
));

# Test::More's, save done_testing, which is ours below
BEGIN {
    no strict 'refs';
    for my $name (grep { $_ ne 'done_testing' } @Test::More::EXPORT) {
        if ($name =~ /^\$(.*)/) { *{$1} = \${"Test::More::$1"} }
        else                    { *{$name} = \&{"Test::More::$name"} }
    }
}

use RT::HTTP qw(get head post request curl);

my $root = abs_path(dirname(__FILE__) . '/../..');
my $owner = $$;         # forked children must not clean up
my $dir;
my (@instances, %children, %locks);

sub root { return $root }

sub asan { return ($ENV{RT_ASAN} // '') ne '' }

# a deadline, stretched where everything is slower
sub scale ($seconds) {
    return $seconds * ($ENV{RT_SCALE} // (asan() ? 4 : 1));
}

sub dir {
    if (!defined $dir) {
        $dir = "$root/build/t/" . basename($0) =~ s/\.t$//r . "-$$";
        make_path($dir);
    }
    return $dir;
}

sub slurp ($file) {
    open my $fh, '<:raw', $file or return '';
    local $/;
    return <$fh> // '';
}

sub spew ($file, $text) {
    open my $fh, '>:raw', $file or die "$file: $!\n";
    print $fh $text;
    close $fh or die "$file: $!\n";
}

sub need (@programs) {
    for my $name (@programs) {
        next if grep { -x "$_/$name" } split(/:/, $ENV{PATH}), '/usr/sbin';
        Test::More::plan(skip_all => "no $name");
    }
}

# polls COND until it is true; undef after the deadline
sub poll_until ($cond, $seconds) {
    my $end = time + scale($seconds);
    my $nap = 0.002;
    while (1) {
        my $value = $cond->();
        return $value if $value;
        return undef if time >= $end;
        sleep $nap;
        $nap = $nap * 1.5 if $nap < 0.05;
    }
}

sub wait_for :prototype(&@) ($cond, $seconds = 5, $what = 'condition') {
    my $value = poll_until($cond, $seconds);
    if (!$value) {
        local $Test::Builder::Level = $Test::Builder::Level + 1;
        fail("$what (not within " . scale($seconds) . ' s)');
    }
    return $value;
}

sub wait_ok :prototype(&@) ($cond, $seconds = 5, $what = 'condition') {
    my $value = poll_until($cond, $seconds);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok($value, $value ? $what : "$what (not within " . scale($seconds) . ' s)');
    return $value;
}

# for what must not happen: keep SECONDS short
sub stays :prototype(&@) ($cond, $seconds, $what) {
    my $end = time + $seconds;
    my $held = 1;
    while ($held && time < $end) {
        $held = $cond->() ? 1 : 0;
        sleep 0.02;
    }
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return ok($held, $what);
}

# A port below the ephemeral range, so that no outgoing connection takes it,
# and under a lock held by this process, so that no other test does.
sub free_port {
    my $locks = "/tmp/ngx_rt-ports-$<";
    make_path($locks);
    for (1 .. 2000) {
        my $port = 20000 + int rand 12000;
        next if $locks{$port};
        sysopen my $fh, "$locks/$port", O_CREAT | O_RDWR or next;
        flock $fh, LOCK_EX | LOCK_NB or next;
        my $probe = IO::Socket::INET->new(
            LocalAddr => '0.0.0.0', LocalPort => $port, Proto => 'tcp',
            Listen => 1, ReuseAddr => 1) or next;
        close $probe;
        $locks{$port} = $fh;
        return $port;
    }
    die "no free port\n";
}

sub nginx_t (%args) { return RT::Nginx->check(%args) }

# Processes.  A child leads a process group of its own, so that a group
# kill reaches its children and nobody else's; the kernel ends it when this
# process dies without having cleaned up.

my %prctl = (x86_64 => 157, aarch64 => 167);

sub spawn ($argv, %opt) {
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        setpgrp 0, 0;
        my $nr = $prctl{(POSIX::uname())[4]};
        my ($set_death_signal, $term) = (1, 15);
        syscall $nr, $set_death_signal, $term, 0, 0, 0 if $nr;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $opt{out} // '/dev/null';
        open STDERR, '>&', \*STDOUT;
        $ENV{$_} = $opt{env}{$_} for keys %{$opt{env} // {}};
        if (ref $argv eq 'CODE') {
            $argv->();
            POSIX::_exit(0);
        }
        { no warnings 'exec'; exec { $argv->[0] } @$argv }
        print STDERR "$argv->[0]: $!\n";
        POSIX::_exit(127);
    }
    $children{$pid} = 1;
    return $pid;
}

# true: still running.  false: gone and reaped, $? is as waitpid left it
sub running ($pid) {
    return 0 if !$children{$pid};
    return 1 if waitpid($pid, WNOHANG) == 0;
    delete $children{$pid};
    return 0;
}

# members of a child's process group, zombies left out
sub group ($pgid) {
    my @pids;
    opendir my $dh, '/proc' or return;
    for my $pid (grep { /^\d+$/ } readdir $dh) {
        my $stat = slurp("/proc/$pid/stat") =~ s/^.*\) //sr or next;
        my ($state, undef, $group) = split / /, $stat;
        push @pids, $pid if $group == $pgid && $state ne 'Z';
    }
    return @pids;
}

# ends a child and its group for certain, also when it is stopped: it must not
# go on for a moment before that
sub kill_group ($pid) {
    kill KILL => -$pid;
    waitpid $pid, 0 if delete $children{$pid};
}

# SIGSTOP, and back when it has stopped: until then it may take a connection,
# which then gets no answer
sub freeze ($pid) {
    kill STOP => $pid;
    return poll_until(sub { slurp("/proc/$pid/stat") =~ /\) T / }, 5);
}

sub register ($instance) {
    push @instances, $instance;
}

# Stops nginx instances first: they must not see their Redis go away.
sub stop_all {
    my @order = sort { $b->isa('RT::Nginx') <=> $a->isa('RT::Nginx') }
        splice @instances;
    $_->stop for @order;
}

sub done_testing (@args) {
    stop_all();
    Test::More::done_testing(@args);
}

for my $name (qw(INT TERM HUP)) {
    $SIG{$name} = sub { exit 1 };
}
$SIG{PIPE} = 'IGNORE';

END {
    if ($$ == $owner) {
        my $status = $?;
        if (@instances) {       # died, or forgot done_testing
            $status ||= 1;
            $_->abandon for splice @instances;
        }
        kill_group($_) for keys %children;
        if (defined $dir) {
            my $passed = $status == 0
                && Test::More->builder->is_passing;
            if ($passed && !$ENV{RT_KEEP}) { remove_tree($dir) }
            else { Test::More::diag("kept: $dir") }
        }
        $? = $status;
    }
}

require RT::Nginx;
require RT::Redis;
require RT::SSE;
require RT::Swarm;
require RT::FakeRedis;

1;
