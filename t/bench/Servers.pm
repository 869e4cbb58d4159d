package Servers;

# What is measured: nginx with the module, and peers beside it.
#
#     my $ngx = Servers::ours($hub, $server);      # an RT::Nginx
#     my @servers = (Servers::bare('b'), Servers::rt('r'),
#                    Servers::peers('p'));
#     my %load = Servers::loads(\@servers, clients => 1000);
#     $_->{stop}->() for @servers;
#
# A server is { name, pid, port, load => { options of a load }, stop => SUB },
# and of rt's, ngx.  The names of its channels begin as the argument says.
# What others() has are other builds.  Peers are those that are here:
#
#     Nchan             memory store, fed by HTTP
#     Nchan by Redis    nchan_redis_pass; another nginx takes the publishes,
#                       which is not counted
#     Node              peer/sse.mjs

use v5.36;
use Cwd qw(abs_path);
use RT;
use Bench;

my $quiet = 'access_log off; keepalive_requests 1000000000;
    keepalive_timeout 1h; error_log %%DIR%%/logs/error.log warn;';
# more than descriptors: with 15 of 16 in use nginx closes those that wait for
# a request
my $events = 'worker_connections 21000; multi_accept on;';
my $nchan = (grep { -f } map { "$_/ngx_nchan_module.so" }
    '/usr/lib/nginx/modules', '/usr/lib64/nginx/modules')[0];
$nchan = undef if $ENV{RT_NGINX};       # which it may not fit
my ($node, @also);

sub nginx ($http, $server, %args) {
    local $ENV{RT_MODULE} = $args{module} if $args{module};
    return RT::Nginx->new(redis => $Bench::redis, events => $events,
        main => Bench::affinity() . ' worker_rlimit_nofile 20000;',
        http => $http, server => "$quiet $server", %args);
}

# hub "app" and what the parts ask it for
sub ours ($hub = '', $server = '', %args) {
    return nginx(<<"H", <<"S", %args);
        rt_hub app { zone 64m; redis %%REDIS%%; }
        $hub
H
        rt_heartbeat 1h;
        location ~ ^/sse/(?<channel>\\w+)\$ { rt_subscribe app \$channel; }
        location = /status { rt_status json; }
        location = /204 { return 204; }
        location = /small { return 200 "hello, a small answer\\n"; }
        $server
S
}

# other builds of the module, which are measured beside this one: "NAME:FILE",
# with commas between
sub also ($text) {
    for (split /,/, $text) {
        my ($name, $file) = /^([^:]+):(.+)\z/ or die "also=NAME:FILE, not $_\n";
        -f $file or die "also: there is no $file\n";
        push @also, { name => $name, file => abs_path($file) };
    }
}

# as servers; the names of their channels begin with CHANNEL, CHANNELx, ...
sub others ($channel, $server = '') {
    my $n = 0;
    return map { rt($channel . 'x' x $n++, $_->{name}, '', $server,
                    module => $_->{file}) } @also;
}

# those that are not here, told
sub missing {
    return ($nchan ? () : 'Nchan (libnginx-mod-nchan)',
            has_node() ? () : 'Node (node, npm ci --prefix t/bench/peer)');
}

# what Redis has of it comes from npm, at the versions and digests of the lock
sub has_node {
    return $node if defined $node;
    my $dir = RT::root() . '/t/bench/peer';
    $node = 0;
    for my $program (qw(node npm)) {
        return 0 if !grep { -x "$_/$program" } split /:/, $ENV{PATH};
    }
    if (!-d "$dir/node_modules/ioredis") {
        my $pid = RT::spawn(['npm', 'ci', '--no-audit', '--prefix', $dir],
            out => RT::dir() . '/npm.log');
        RT::poll_until(sub { !RT::running($pid) }, 60)
            // RT::kill_group($pid);
    }
    return $node = -d "$dir/node_modules/ioredis" ? 1 : 0;
}

sub worker ($ngx) { return ($ngx->workers)[0] // die "no worker\n" }

# the bare loop with the options of bare.c
sub bare ($channel, %opt) {
    my $bare = Bench::bare(%opt);
    return { name => 'bare', %$bare, stop => sub { Bench::end($bare) },
             load => by_redis($channel) };
}

# ours; CONF: what ours() takes
sub rt ($channel, $name = 'ngx_rt', @conf) {
    my $ngx = ours(@conf);
    return { name => $name, pid => worker($ngx), port => $ngx->port,
             ngx => $ngx, stop => sub { $ngx->stop },
             load => by_redis($channel) };
}

sub by_redis ($channel) {
    return { path => "/sse/$channel%u", name => "$channel%u" };
}

sub by_http ($channel, $port) {
    return { path => "/sse/$channel%u", http => $port,
             post => "/publish/$channel%u" };
}

# NAME => an open load "fan", of each
sub loads ($servers, %common) {
    return map { ($_->{name} => Bench::Load->new('fan', %common,
        redis => $Bench::redis->port, port => $_->{port}, %{$_->{load}})) }
        @$servers;
}

sub hub ($ngx, $name = 'app') {
    my $r = RT::get($ngx, '/status');
    my ($hub) = grep { $_->{name} eq $name }
        @{JSON::PP::decode_json($r->body)->{hubs}};
    return $hub;
}

sub channels_live ($name, $n) {
    RT::poll_until(sub {
        return @{$Bench::redis->cmd(PUBSUB => 'CHANNELS', $name)} >= $n;
    }, 30) // die "$n channels $name are not subscribed\n";
}


# peers

sub with_nchan ($redis = 0) {
    my $pass = $redis ? 'nchan_redis_pass bench;' : '';
    my $upstream = $redis ? 'upstream bench { nchan_redis_server %%REDIS%%; }'
        : '';
    return nginx($upstream, <<"S", modules => [$nchan]);
        location ~ ^/sse/(\\w+)\$ {
            nchan_subscriber                eventsource;
            nchan_channel_id                \$1;
            nchan_subscriber_first_message  newest;
            $pass
        }
        location ~ ^/publish/(\\w+)\$ {
            nchan_publisher;
            nchan_channel_id  \$1;
            $pass
        }
S
}

sub nchan ($channel) {
    my $ngx = with_nchan();
    return { name => 'Nchan', pid => worker($ngx), port => $ngx->port,
             load => by_http($channel, $ngx->port),
             stop => sub { $ngx->stop } };
}

sub nchan_by_redis ($channel) {
    my ($ngx, $publisher) = map { with_nchan(1) } 1 .. 2;
    return { name => 'Nchan by Redis', pid => worker($ngx), port => $ngx->port,
             load => by_http($channel, $publisher->port),
             stop => sub { $_->stop for $ngx, $publisher } };
}

sub node ($channel) {
    my $port = RT::free_port();
    my $log = RT::dir() . "/node-$port.log";
    my @cpu = $Bench::cpu{server} < 0 ? ()
        : ('taskset', '-c', $Bench::cpu{server});
    my $pid = RT::spawn([@cpu, 'node', RT::root() . '/t/bench/peer/sse.mjs',
        $port, $Bench::redis->port], out => $log);
    RT::poll_until(sub {
        die "Node: " . RT::slurp($log) if !RT::running($pid);
        return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port");
    }, 20) // die "Node does not listen\n";
    return { name => 'Node', pid => $pid, port => $port,
             load => by_redis($channel),
             stop => sub { RT::kill_group($pid) } };
}

# of these NAMES; each its own process
sub peers ($channel, @names) {
    my %want = map { $_ => 1 } @names;
    return (
        $nchan && $want{Nchan} ? nchan("n$channel") : (),
        $nchan && $want{'Nchan by Redis'} ? nchan_by_redis("q$channel") : (),
        $want{Node} && has_node() ? node("j$channel") : (),
    );
}

# measures a peer: what it can't do leaves it out, and is told
sub try ($failed, $name, $sub) {
    return 0 if $failed->{$name};
    my $value = eval { $sub->() };
    return $value if defined $value;
    $failed->{$name} = $@ =~ s/\n.*//sr;
    say "    $name: $failed->{$name}";
    return 0;
}

1;
