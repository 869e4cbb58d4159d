# Workers that are killed, stopped and let go on, under load: what is missing
# was told, nothing comes twice, another one feeds at once.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use List::Util qw(max);
use Time::HiRes qw(time);
use RT;
use RT::Storm;

my $seconds = $ENV{RT_SLOW} ? 20 : 5;

my $server = <<'END';
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location /publish { rt_publish app $arg_channel; }
    location /status { rt_status json; }
END

sub hub ($ngx) {
    return eval { decode_json(get($ngx, '/status', timeout => 1)->body)
        ->{hubs}[0] } // { feed => { worker => 0, state => '' } };
}

sub feeder ($ngx) { return hub($ngx)->{feed}{worker} }

sub told (@events) {
    return join ' ', map { $_->{event} eq 'rt.gap' ? 'gap' : $_->{data} }
        @events;
}

# what a source needs: its hub, who publishes, what is once subscribed
my %source = (
    pubsub => {
        hub => 'redis %%REDIS%%;',
        redis => 1,
        publish => sub ($ngx, $redis) {
            return sub ($channel, $n) {
                $redis->publish($channel, $n);
                return 1;
            };
        },
    },
    embedded => {
        hub => '',
        publish => sub ($ngx, $redis) {
            return sub ($channel, $n) {
                return post($ngx, "/publish?channel=$channel", $n,
                            timeout => 1)->status == 202;
            };
        },
    },
);

for my $name (sort keys %source) {
    subtest "$name: a worker is killed twice a second" => sub {
        my $source = $source{$name};
        my $redis = $source->{redis} ? RT::Redis->new : undef;
        my $ngx = RT::Nginx->new(redis => $redis, workers => 4,
            http => "rt_hub app { $source->{hub} history 4000; }",
            server => $server,
            allow => [qr/zone "rt_hub:\S+ was locked by/]);
        my @channels = map { "c$_" } 1 .. 10;
        my $storm = RT::Storm->new($ngx, channels => \@channels, each => 6,
            rate => 200, retry => 20,
            publish => $source->{publish}->($ngx, $redis))->open;
        my ($kills, $feeders) = (0, 0);
        $storm->run($seconds, 0.5 => sub {
            my @workers = $ngx->workers or return;
            my $pid = $workers[rand @workers];
            $feeders++ if $redis && $pid == feeder($ngx);
            $ngx->kill_worker(KILL => $pid);
            $kills++;
        });
        cmp_ok($kills, '>', $seconds / 2, "$kills killed, $feeders that fed");
        $storm->finish;
        my $v = $storm->judge($name);
        is($v->{gaps}, 0, 'nobody else feeds: no gap') if !$redis;
        cmp_ok($v->{connects}, '>', $v->{clients}, 'clients were cut');
        is($redis->numsub('c1'), 1, 'subscribed once') if $redis;
        $storm->close;
    };
}

subtest 'the feeder is killed' => sub {
    my $redis = RT::Redis->new;
    my $ngx = RT::Nginx->new(redis => $redis, workers => 4,
        http => 'rt_hub app { redis %%REDIS%%; }', server => $server);
    get($ngx, '/rt/c');
    $redis->wait_sub('c');
    my @took;
    for (1 .. 10) {
        my $old = wait_for { feeder($ngx) } 5, 'a feeder';
        $ngx->kill_worker(KILL => $old);
        my $start = time;
        wait_for { $redis->numsub('c') == 0 } 2, 'gone';
        wait_for { $redis->numsub('c') == 1 } 5, 'fed again' or last;
        push @took, time - $start;
        wait_for { my $f = hub($ngx)->{feed};
                   $f->{state} eq 'live' && $f->{worker} != $old } 2, 'live';
    }
    cmp_ok(max(@took), '<', RT::scale(0.6), 'another one feeds after '
        . join ' ', map { sprintf '%.2f', $_ } @took);
};

# One that is stopped hears no more, but its socket does: what it would write
# when it goes on, its successor has written.
for my $case (['three seconds: another one feeds', 1],
              ['for a moment: nobody notices', 0]) {
    my ($name, $long) = @$case;
    subtest "the feeder is stopped for $name" => sub {
        my $redis = RT::Redis->new;
        my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
            http => 'rt_hub app { redis %%REDIS%%; redis_timeout 2s 20s; }',
            server => $server);
        # some of the streams are its own
        my @sse = map { RT::SSE->new($ngx, '/rt/c') } 1 .. 20;
        $redis->wait_sub('c');
        my $read = sub {
            RT::SSE::pump(0.02, @sse);
            return 1;
        };
        $redis->publish(c => 'before');
        wait_for { $read->(); 20 == grep { @{$_->{events}} } @sse } 5, 'live';

        my $old = feeder($ngx);
        RT::freeze($old);
        my $start = time;
        if ($long) {
            wait_for { $read->(); $redis->numsub('c') == 2 } 6,
                'another one subscribes';
            my $took = time - $start;
            ok($took > 2 && $took < RT::scale(4),
                sprintf 'after %.2f s', $took);
            # it subscribes first and is heard from then on
            wait_for { $read->();
                grep { told(@{$_->{events}}) =~ /gap/ } @sse } 3, 'and tells';
        } else {
            RT::poll_until(sub { $read->(); time - $start > 1.5 }, 3);
        }
        $redis->publish(c => "meanwhile $_") for 1 .. 50;
        if ($long) {
            wait_for { $read->();
                grep { told(@{$_->{events}}) =~ /meanwhile 50/ } @sse } 3,
                'which is delivered';
        }
        kill CONT => $old;
        wait_for { $read->(); 20 == grep {
            told(@{$_->{events}}) =~ /meanwhile 50$/ } @sse } 5, 'to all';
        $redis->publish(c => 'after');
        wait_for { $read->(); 20 == grep {
            told(@{$_->{events}}) =~ /after$/ } @sse } 5, 'and on';
        my $want = join ' ', 'before', $long ? 'gap' : (),
            (map { "meanwhile $_" } 1 .. 50), 'after';
        is(scalar(grep { told(@{$_->{events}}) ne $want } @sse), 0,
            'each message once') or diag(told(@{$sse[0]{events}}));
        my $hub = hub($ngx);
        is($hub->{messages}{in}, 52, 'stored once');
        is($hub->{feed}{gaps}, $long, 'gaps');
        ok(($hub->{feed}{worker} == $old) == !$long, 'fed by the right one');
        wait_ok { $redis->numsub('c') == 1 } 5, 'one subscription is left';
        is(scalar $ngx->workers, 2, 'nobody died');
    };
}

done_testing;
