# The zone across reloads: what goes on, what begins anew, and a reload that
# fails while the old workers serve.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use JSON::PP qw(decode_json);

my $redis = RT::Redis->new;
my $paths = <<'END';
    location = /status { rt_status; }
    location ~ ^/rt/(?<channel>.*)$ { rt_subscribe app $channel; }
    location ~ ^/pub/(?<channel>.*)$ { rt_publish app $channel; }
END
my $ngx = RT::Nginx->new(
    workers => 2,
    redis   => $redis,
    http    => 'rt_hub app { zone 8m; } rt_drain 200ms;',
    server  => $paths,
);

sub config ($hub, @more) {
    return (http => "rt_hub app { $hub } rt_drain 200ms;", @more);
}

# after a reload with this hub: does what was there go on?
sub goes_on ($goes_on, $hub, $name, @more) {
    my $before = post($ngx, '/pub/a', "before $name");
    my ($epoch) = get($ngx, '/rt/a')->header('ETag') =~ /"(\w+)/;
    $ngx->reload(config($hub, @more));
    my $r = get($ngx, '/rt/a');
    my ($now) = ($r->header('ETag') // '') =~ /"(\w+)/;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    if ($goes_on) {
        is($r->body, "before $name", "$name: goes on");
        is($now, $epoch, "$name: under the same cursors");
    } else {
        is($r->body, '', "$name: begins anew");
        isnt($now, $epoch, "$name: under other cursors");
    }
    is(post($ngx, '/pub/a', 'x')->status, 202, "$name: works");
}

goes_on(1, 'zone 8m;', 'nothing changed');
goes_on(1, 'zone 8m; history 3; inactive 1m; message_max 1k;',
    'limits changed');
is(post($ngx, '/pub/a', 'x' x 1025)->status, 413, 'they are the new ones');
goes_on(1, 'zone 8m;', 'more workers', workers => 5);
goes_on(1, 'zone 8m;', 'fewer workers', workers => 1);
goes_on(0, 'zone 9m;', 'another size');
goes_on(1, 'zone 9m; payload json;', 'payload of an embedded hub');

# to Redis and back; in Redis hubs a marker shows whose memory it is

# once the feed is live; until then nothing known is 503
sub begins_anew ($name) {
    wait_ok { get($ngx, '/rt/a')->status == 204 } 5, "$name: begins anew";
}

# the feeder of the generation before may have the channel still
sub fed ($name, $channel = 'a') {
    wait_ok { $redis->publish($channel => $name);
              get($ngx, '/rt/a')->body eq $name } 5, "fed: $name";
}

$ngx->reload(config('zone 9m; redis %%REDIS%%;'));
begins_anew('to Redis');

fed('first');
$ngx->reload(config('zone 9m; redis %%REDIS%%; stale 1m;'));
is(get($ngx, '/rt/a')->body, 'first', 'the same Redis: goes on');
$ngx->reload(config('zone 9m; redis %%REDIS%%; prefix p:;'));
begins_anew('another prefix');
fed('second', 'p:a');
$ngx->reload(config('zone 9m; redis %%REDIS%%; prefix p:; payload json;'));
begins_anew('another payload');
$ngx->reload(config('zone 9m;'));
begins_anew('back to an embedded one');
is(post($ngx, '/pub/a', 'here')->status, 202, 'which works');

# a reload that fails, after the zones were looked at: a port in use

my $busy = RT::free_port();
my $other = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1',
    LocalPort => $busy, ReuseAddr => 0) or die "listen: $!\n";
$ngx->allow(qr/bind\(\) to 127\.0\.0\.1:$busy failed/);
$ngx->allow(qr/still could not bind/);
my @workers = $ngx->workers;
my $sse = RT::SSE->new($ngx, '/rt/a');
$sse->expect('here');
my $args = $ngx->{args};
$ngx->{args} = { %$args, config('zone 9m; history 1;'
    . " } server { listen 127.0.0.1:$busy; ") };
$ngx->{args}{http} =~ s/\} server/} server/;
$ngx->_write_conf;
$ngx->signal('HUP');
wait_ok { scalar $ngx->log(qr/still could not bind/) } 10, 'a reload fails';
is_deeply([$ngx->workers], \@workers, 'the old workers serve');
post($ngx, '/pub/a', 'after');
$sse->expect('after');
is(get($ngx, '/rt/a')->body, 'after', 'from the same memory');
$sse->close;
close $other;
$ngx->reload(%$args);
is(get($ngx, '/rt/a')->body, 'after', 'and a good reload goes on with it');

# hubs come and go

$ngx->reload(http => 'rt_hub one { zone 8m; } rt_hub two { zone 9m; }',
    server => 'location = /status { rt_status; }');
my $status = decode_json(get($ngx, '/status')->body);
is_deeply([map { $_->{name} } @{$status->{hubs}}], ['one', 'two'],
    'other hubs');
$ngx->reload(http => '', server => 'location = /status { rt_status; }');
is_deeply(decode_json(get($ngx, '/status')->body)->{hubs}, [], 'no hub');
$ngx->reload(config('zone 8m;'), server => $paths);
is(post($ngx, '/pub/a', 'x')->status, 202, 'a hub again');

# the master's memory does not grow with zones that were given up

sub zones ($pid) {
    return scalar grep { /^\S+ rw-s .*(?:\/dev\/zero|shmem)/ }
        split /\n/, slurp("/proc/$pid/maps");
}
my $zones = zones($ngx->pid);
for my $hub ('zone 9m; redis %%REDIS%%;', 'zone 8m;') {
    $ngx->reload(config($hub)) for 1 .. 2;
}
is(zones($ngx->pid), $zones, 'zones that are not used are given back');

done_testing;
