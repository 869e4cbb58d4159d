# docker/: the image is built by buildah, no engine needed, and its nginx run
# with a real Redis.  The base image is a debootstrap tree committed under the
# name that FROM uses, kept in build/docker for the next time.
#
# Takes minutes: only with RT_SLOW=1.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use File::Path qw(make_path);
use Time::HiRes qw(time);

plan(skip_all => 'slow: set RT_SLOW=1')
    if !$ENV{RT_SLOW};
plan(skip_all => 'needs root for buildah and debootstrap') if $> != 0;
system root() . '/tools/deps.sh', 'docker';
need(qw(buildah debootstrap redis-server));
plan(skip_all => 'tests another module than the one the image builds')
    if asan();

my $base = 'debian:bookworm-slim';
my $mirror = $ENV{RT_DEBIAN} // 'http://deb.debian.org/debian';
my $store = root() . '/build/docker';
my $image = 'ngx_rt-test';
make_path($store);

# buildah run needs a parent that waits for it and nobody's terminal
my %env = (BUILDAH_ISOLATION => 'chroot', STORAGE_DRIVER => 'vfs');

sub run ($seconds, @argv) {
    my $out = dir() . '/run.log';
    unlink $out;
    my $start = time;
    my $pid = RT::spawn([@argv], out => $out, env => \%env);
    my $ended = RT::poll_until(sub { !RT::running($pid) }, $seconds);
    my $status = $ended ? $? : -1;
    RT::kill_group($pid) if !$ended;
    note(sprintf '%.0f s: %s', time - $start,
        join ' ', (grep { !m{^--|/build/docker/} } @argv)[0 .. 1]);
    return ($status == 0, slurp($out));
}

sub buildah ($seconds, $command, @args) {
    return run($seconds, 'buildah', '--root', "$store/storage", '--runroot',
        "$store/run", $command, @args);
}

sub tail ($text) {
    my @lines = split /\n/, $text;
    splice @lines, 0, -25 if @lines > 25;
    return join "\n", @lines;
}

# the base image, once
sub base_image {
    return 1 if (buildah(60, 'inspect', '--type', 'image', $base))[0];
    my $tree = "$store/tree";
    if (!-e "$tree.done") {
        my ($done, $text) = run(300, qw(debootstrap --variant=minbase
            bookworm), $tree, $mirror);
        return diag(tail($text)) && 0 if !$done;
        # as Debian's slim images have it
        RT::spew("$tree/etc/dpkg/dpkg.cfg.d/slim", <<'END');
force-unsafe-io
path-exclude /usr/share/doc/*
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
END
        RT::spew("$tree.done", '');
    }
    my ($ok, $name) = buildah(60, 'from', 'scratch');
    chomp $name;
    ($ok, my $text) = buildah(300, 'copy', '--quiet', $name, $tree, '/') if $ok;
    ($ok, $text) = buildah(60, 'config', '--env', 'PATH=/usr/local/sbin:'
        . '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', $name) if $ok;
    ($ok, $text) = buildah(300, 'commit', '--quiet', '--rm', $name, $base)
        if $ok;
    diag(tail($text // $name)) if !$ok;
    run(60, 'rm', '-rf', $tree, "$tree.done") if $ok;
    return $ok;
}

if (!ok(base_image(), "the base image $base")) {
    done_testing;
    exit;
}

my ($built, $text) = buildah(600, 'bud', qw(--network host --pull-never
    --format docker), '-t', $image, '-f',
    root() . '/docker/Dockerfile', root());
if (!ok($built, 'docker/Dockerfile builds')) {
    diag(tail($text));
    done_testing;
    exit;
}

# what the image says of itself
my (undef, $about) = buildah(60, 'inspect', '--type', 'image', $image);
like($about, qr/"(?:StopSignal)": "SIGQUIT"/, 'stops by SIGQUIT');
like($about, qr/"User": "www-data"/, 'runs without privileges');
my ($check) = $about =~ /"Healthcheck": \{\s*"Test": \[\s*"CMD",\s*"([^"]+)"/;
is($check, 'health.sh', 'has a health check');

# Its nginx, from a working container, in this machine's network.
my $redis = RT::Redis->new;
my $port = free_port();
my ($ok, $container) = buildah(300, 'from', '--pull-never', $image);
chomp $container;
ok($ok, 'a container') or diag(tail($container));

sub in_container (@args) {
    return ('buildah', '--root', "$store/storage", '--runroot', "$store/run",
        'run', '--env', "PORT=$port", '--env', 'REDIS_URL=' . $redis->url,
        @args);
}

# An engine gives the container's user its standard output, which nginx opens
# again as /dev/stdout; buildah's belongs to root, so a pipe is between.
my $log = dir() . '/container.log';
my $pid = RT::spawn([in_container($container, '--', 'entrypoint.sh', 'bash',
    '-c', 'set -o pipefail; nginx -g "daemon off;" | cat')],
    out => $log, env => \%env);

my $up = wait_ok {
    RT::running($pid) && (eval { get($port, '/rt-status')->body } // '')
        =~ /"state":\s*"live"/
} 60, 'nginx of the image runs, its feed is live';

if ($up) {
    my ($healthy, $said) = run(30, in_container($container, '--', $check));
    ok($healthy, 'the health check says healthy') or diag($said);

    my ($sick) = run(30, 'buildah', '--root', "$store/storage", '--runroot',
        "$store/run", 'run', '--env', 'PORT=' . free_port(), $container, '--',
        $check);
    ok(!$sick, 'and unhealthy where nothing listens');

    my $sse = RT::SSE->new($port, '/rt/orders:42');
    $redis->wait_sub('orders:42');
    $redis->publish('orders:42', 'into the container');
    is($sse->event->{data}, 'into the container',
        'a publish arrives at an SSE client');
    my $poll = get($port, '/rt/orders:42');
    is($poll->status, 200, 'and at a poll');
    is(get($port, '/rt/orders:42', headers => ['If-None-Match' =>
        $poll->header('ETag')])->status, 304, 'then 304');
    is(post($port, '/publish?channel=orders:42', 'by HTTP')->status, 202,
        'publish by HTTP');
    is($sse->event->{data}, 'by HTTP', 'arrives too');
    like(get($port, '/')->body, qr/<title>ngx_rt/, 'the page is in the image');
    $sse->close;
}

# the master, not buildah: QUIT as the engine would send it
my ($master) = grep { slurp("/proc/$_/cmdline") =~ /^nginx: master/ }
    descendants($pid);
if (ok($master, 'nginx is the container\'s own process')) {
    kill QUIT => $master;
    ok(RT::poll_until(sub { !RT::running($pid) }, 20), 'ends on QUIT');
    is($?, 0, 'with status 0');
}
RT::kill_group($pid);

my $logged = slurp($log);
unlike($logged, qr/\[(?:alert|emerg)\]|exited on signal/, 'no alert logged');
like($logged, qr/"GET \/rt\/orders:42 HTTP/, 'the access log is on stdout');
diag(tail($logged)) if !Test::More->builder->is_passing;

buildah(60, 'rm', $container);
buildah(60, 'rmi', $image);
compose();
done_testing;


sub descendants ($pid) {
    my @all;
    for my $task (glob "/proc/$pid/task/*") {
        push @all, $_, descendants($_)
            for split / /, slurp("$task/children");
    }
    return @all;
}

# There is no engine here to run it: what can be checked of compose.yaml is
# that it parses, and that its names are those of the files.
sub compose {
    my $file = root() . '/docker/compose.yaml';
    my $yaml = slurp($file);
    my @load = ('python3', '-c', 'import json, sys, yaml;'
        . 'print(json.dumps(yaml.safe_load(open(sys.argv[1]))))', $file);
    my ($parsed, $json) = run(30, @load);
  SKIP: {
        skip 'no python3-yaml', 1 if $json =~ /No module named|python3: No/;
        ok($parsed, 'compose.yaml is YAML') or diag($json);
    }
    my ($dockerfile) = $yaml =~ /^\s+dockerfile: (.*)$/m;
    ok(-f root() . "/$dockerfile", 'compose.yaml: the Dockerfile is there');
    my ($host) = $yaml =~ m{REDIS_URL: redis://([\w.-]+):6379};
    like($yaml, qr/^  \Q$host\E:\n/m, 'compose.yaml: REDIS_URL names a service');
    like($yaml, qr/^      \Q$host\E:\n        condition: service_healthy/m,
        'compose.yaml: nginx waits for it to be healthy');
    my ($exposed) = slurp(root() . '/docker/Dockerfile') =~ /^EXPOSE (\d+)/m;
    like($yaml, qr/"127\.0\.0\.1:\d+:$exposed"/,
        'compose.yaml: the port is the one that the image exposes');
}
