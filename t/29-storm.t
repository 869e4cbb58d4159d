# Clients that reconnect as browsers do, messages all the time, and reloads,
# kills, restarts of Redis: a small storm, and with RT_SLOW=1 a long one of
# 500 clients.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;
use RT::Storm;

my $slow = $ENV{RT_SLOW};
my ($clients, $seconds) = $slow ? (500, 60) : (100, 5);
my ($reload, $kill, $restart) = $slow ? (5, 5, 10) : (1, 0.8, 2);

my $server = <<'END';
    rt_drain 300ms; rt_retry 50ms;
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location /status { rt_status json; }
END

# what a source needs: the hub; the command that publishes; whether it loses
# nothing, whatever becomes of workers and Redis
my %source = (
    pubsub => {
        hub => 'redis %%REDIS%%; redis_reconnect 50ms 200ms; history 4000;',
        publish => sub ($redis, $channel, $n) {
            $redis->publish($channel, $n);
            return 1;
        },
        kept => 0,
    },
    stream => {
        hub => 'redis %%REDIS%%; redis_reconnect 50ms 200ms; history 100;
                source stream;',
        redis => [appendonly => 'yes', appendfsync => 'always'],
        publish => sub ($redis, $channel, $n) {
            $redis->cmd(XADD => $channel, '*', data => $n);
            return 1;
        },
        kept => 1,
    },
);

sub hub ($ngx) { decode_json(get($ngx, '/status')->body)->{hubs}[0] }

sub fds ($pid) { return scalar(() = glob "/proc/$pid/fd/*") }

sub zones ($pid) {
    return scalar grep { m{/dev/zero} } split /\n/, slurp("/proc/$pid/maps");
}

sub storm ($source, $n, $more = '') {
    my $redis = RT::Redis->new(args => $source->{redis} // []);
    my $ngx = RT::Nginx->new(redis => $redis, workers => 3,
        http => "rt_hub app { $source->{hub} } $more", server => $server,
        allow => [qr/zone "rt_hub:\S+ was locked by/]);
    my $channels = $n < 100 ? $n / 5 : $n / 10;
    my $storm = RT::Storm->new($ngx, channels => [map { "c$_" } 1 .. $channels],
        each => $n / $channels, rate => 200, publish => sub ($channel, $text) {
            return $source->{publish}->($redis, $channel, $text);
        })->open;
    $storm->finish;
    return ($redis, $ngx, $storm);
}

for my $name (sort keys %source) {
    my $source = $source{$name};

    subtest "$name: reloads in a row" => sub {
        my ($redis, $ngx, $storm) = storm($source, 60);
        # each of them takes its place: the first ones make the pools
        my $wait = sub ($what) {
            my %old = map { $_ => 1 } $ngx->workers;
            $ngx->signal('HUP');
            $storm->until(sub {
                my @now = $ngx->workers;
                3 == @now && !grep { $old{$_} } @now }, 10, $what);
        };
        $wait->("waited for $_") for 1 .. 4;
        # the master and its three
        my $settled = sub { 4 == RT::group($ngx->pid) && 3 == $ngx->workers };
        $storm->until($settled, 10, 'old ones are gone');
        my $master = $ngx->pid;
        my @before = (fds($master), zones($master));
        my $rss = $ngx->rss($master);
        $wait->("waited for $_") for 5 .. 20;
        my $v = $storm->verdict;
        is($v->{gaps}, 0, 'reloads that are waited for have no gap');

        # as fast as nginx takes them
        my $turns = 20;
        $storm->run(2.05, 0.1 => sub { $ngx->signal('HUP') if $turns-- > 0 });
        $storm->until($settled, 15,
            'the old ones of 20 more, one each 100 ms, are gone');
        $storm->finish;
        $v = $storm->judge($name);
        my $told = $ngx->log(qr/not handed over/);
        my $handed = $ngx->log(qr/without a gap/);
        note("handed over $handed times, $told times not");
        is($v->{gaps}, 0, 'no gap was told') if $told == 0;
        cmp_ok($told, '<=', 1, 'hardly ever a gap');
        is(hub($ngx)->{feed}{gaps}, 0, 'the feed had none') if $told == 0;
        is_deeply([fds($master), zones($master)], \@before,
            "the master has $before[0] descriptors and $before[1] zones, "
            . 'as before');
        my $grown = $ngx->rss($master) - $rss;
        cmp_ok($grown, '<', 1000, "and $grown KB more") if !asan();
        is($redis->numsub('c1'), 1, 'one worker feeds') if !$source->{kept};
        is(scalar(() = grep { $_ ne 'c1' && !/^c/ }
            @{$redis->cmd(PUBSUB => 'CHANNELS')}), 0, 'no marker is left');
        $storm->close;
    };

    subtest "$name: a reload every $reload s" => sub {
        my ($redis, $ngx, $storm) = storm($source, $clients);
        $storm->run($seconds, $reload => sub { $ngx->signal('HUP') });
        $storm->finish;
        my $v = $storm->judge($name, 0);
        cmp_ok($v->{connects}, '>', 2 * $clients, 'they came again');
        $storm->close;
    };

    subtest "$name: a worker is killed every $kill s" => sub {
        my ($redis, $ngx, $storm) = storm($source, $clients);
        my $n = 0;
        $storm->run($seconds, $kill => sub {
            my @workers = $ngx->workers or return;
            my $pid = $workers[rand @workers];
            $pid = hub($ngx)->{feed}{worker} || $pid if $n++ % 2;
            $ngx->kill_worker(KILL => $pid);
        });
        $storm->finish;
        my $v = $storm->judge($name, $source->{kept} ? 0 : undef);
        cmp_ok($v->{gaps}, '>', 0, 'some were told') if !$source->{kept};
        cmp_ok($v->{connects}, '>', $clients, 'they came again');
        $storm->close;
    };

    subtest "$name: reloads, and kills in the middle" => sub {
        my ($redis, $ngx, $storm) = storm($source, $clients);
        my $at = 0;
        $storm->run($seconds, $reload => sub {
            $ngx->signal('HUP');
            $at = time + rand 0.4;
        }, 0.02 => sub {
            return if !$at || time < $at;
            $at = 0;
            my @all = ($ngx->workers, $ngx->old_workers) or return;
            $ngx->kill_worker(KILL => $all[rand @all]);
        });
        $storm->finish;
        $storm->judge($name, $source->{kept} ? 0 : undef);
        $storm->until(sub { !$ngx->old_workers }, 10, 'old workers end');
        $storm->close;
    };

    # what Redis has taken is what an observer may have seen, or more
    subtest "$name: Redis is restarted every $restart s" => sub {
        my ($redis, $ngx, $storm) = storm($source, $clients);
        my $n = 0;
        $storm->run($seconds, $restart => sub {
            $n++ % 2 ? do { $redis->stop; $redis->start } : $redis->restart;
        });
        $storm->finish(15);
        my $v = $storm->judge($name, $source->{kept} ? 0 : undef);
        is($v->{connects}, $clients, 'streams stay open');
        cmp_ok($v->{gaps}, '>=', $n * $clients, "$n restarts: all were told")
            if !$source->{kept};
        $storm->close;
    };
}

done_testing;
