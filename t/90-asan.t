# The tests that drive nginx once more, with an nginx that has sanitizers and
# debug allocators, and the module linked in: "make asan".  Also what only it
# can do: workers that are killed in the middle of a write to the zone.
#
# A report fails the test that provokes it, see RT::Nginx.  All that those
# tests leave is searched for one here as well.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use File::Find qw(find);
use File::Path qw(remove_tree);
use Time::HiRes qw(sleep time);

plan(skip_all => 'is running under it') if asan();
need(qw(make clang redis-server));

# the longest first: two at a time
my @files = qw(20-feed 10-config 21-redis-faults 11-publish 22-patterns
    12-status 32-slow 31-sse-nginx 33-resume 13-variables 30-poll-sse);

my $report = qr/(?:Address|Leak|UndefinedBehavior)Sanitizer|runtime error:/;

my $nginx = build();
BAIL_OUT('no nginx with sanitizers') if !$nginx;

my %env = (RT_NGINX => $nginx, RT_MODULE => '', RT_ASAN => 1, RT_KEEP => 1);

# the path of nginx, of make's last line
sub build {
    my $out = dir() . '/make.out';
    my $start = time;
    my $pid = RT::spawn([qw(make --no-print-directory -C), root(), 'asan'],
                        out => $out);
    RT::poll_until(sub { !RT::running($pid) }, 1200);
    my $done = !RT::running($pid) && $? == 0;
    my ($path) = RT::slurp($out) =~ m{^(/\S+/nginx)\n\z}m;
    ok($done && $path && -x $path, 'make asan') or diag(RT::slurp($out));
    note(sprintf 'built in %d s', time - $start);
    return $done && $path;
}

# every line of a report under a directory
sub reports ($dir) {
    my @lines;
    find({ no_chdir => 1, wanted => sub {
        return if !-f $_ || -p $_;
        my $all = m{/san\.\d+$};
        push @lines, map { "$File::Find::name: $_" }
            grep { $all || /$report/ } split /\n/, slurp($_);
    } }, $dir) if -d $dir;
    return @lines;
}

sub result ($name, $pid, $status, $took) {
    my $out = slurp(dir() . "/$name.out");
    my $kept = root() . "/build/t/$name-$pid";
    my @bad = reports($kept);
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

# Where a worker may die with the zone half written.  All of them are reached
# by the traffic below.
my @points = ('append: limit', 'write: header', 'write: body',
    'commit: head', 'entry: open', 'entry: close', 'entry: closed',
    'alloc: zeroed', 'insert: link', 'make: inserted', 'fill: flags',
    'pass: tail', 'want: taken', 'want: flagged', 'take: term',
    'live: session');

subtest 'killed at a fault point, the next worker goes on' => sub {
    local @ENV{keys %env} = values %env;
    my $redis = RT::Redis->new;
    my $file = dir() . '/fault';
    my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
        env => { RT_FAULT => $file },
        allow => [qr/exited on signal 9/, qr/zone "rt_hub:\S+ was locked by/],
        http => <<'END', server => <<'END2');
        rt_hub app { zone 1m; redis %%REDIS%%; history 8;
                     redis_reconnect 10ms 50ms; }
END
        location ~ ^/rt/(?<channel>.+)$  { rt_subscribe app $channel; }
END2
    my $n = 0;
    for my $point (@points) {
        $ngx->mark;
        RT::spew("$file.new", $point);
        rename "$file.new", $file or die "$file: $!\n";
        wait_ok {
            $n++;
            eval { get($ngx, "/rt/$_", timeout => 1) for 'fill', "new-$n" };
            $redis->publish(fill => 'x' x 3000) for 1 .. 10;
            if ($point =~ /^(?:take|live):/ && $n % 8 == 0) {
                kill KILL => $_ for ($ngx->workers)[0] // ();
            }
            !-e $file && $ngx->log(qr/exited on signal 9/);
        } 10, "killed at: $point";
        wait_ok {
            $n++;
            eval {
                get($ngx, "/rt/a", timeout => 1);
                $redis->publish(a => "m$n") == 1
                    && get($ngx, '/rt/a', timeout => 1)->body eq "m$n";
            };
        } 10, 'and told the next message';
    }
    $ngx->stop;
    is(scalar reports($ngx->dir), 0, 'no report');
};

done_testing;
