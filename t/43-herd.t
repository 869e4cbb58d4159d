# A herd that comes back at once, each with its cursor: all are resumed from
# shared memory, and Redis is asked nothing for any of them.  1,000 clients;
# with RT_SLOW=1 10,000.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use List::Util qw(sum);
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);
use RT;
use RT::Poll;

my $n = $ENV{RT_SLOW} ? 10_000 : 1_000;
my $channels = 50;

my %source = (
    pubsub => ['', sub ($redis, $channel, $text) {
        $redis->publish($channel, $text) }],
    stream => ['source stream;', sub ($redis, $channel, $text) {
        $redis->cmd(XADD => $channel, '*', data => $text) }],
);

# commands that Redis has run, but for those that go on all the time
sub calls ($redis) {
    my %calls = $redis->cmd(INFO => 'commandstats')
        =~ /^cmdstat_(\S+?):calls=(\d+)/mg;
    delete @calls{qw(info ping publish xadd xread client|id client|unblock)};
    return sum 0, values %calls;
}

# the least of a client: connects, asks, collects what comes
sub herd ($ngx, @requests) {
    my $poll = RT::Poll->new;
    my @got = ('') x @requests;
    my $next = 0;
    my $under_way = 0;
    my $connect = sub {
        while ($next < @requests && $under_way < 500) {
            my $i = $next++;
            my $sock = RT::HTTP::connect_to($ngx, timeout => 30);
            $under_way++;
            syswrite $sock, $requests[$i];
            $poll->add($sock, sub ($data) {
                $under_way-- if $got[$i] eq '';
                $got[$i] .= $data;
            });
        }
    };
    return ($poll, \@got, $connect, sub { $next });
}

# seconds until all have what done() says
sub come ($ngx, $done, @requests) {
    my $start = time;
    my ($poll, $got, $connect, $next) = herd($ngx, @requests);
    my $end = $start + RT::scale($n > 5000 ? 120 : 20);
    my %left = map { $_ => 1 } 0 .. $#requests;
    while (%left && time < $end) {
        $connect->();
        $poll->turn(0.05);
        delete @left{grep { $done->($got->[$_], $_) } keys %left};
    }
    return ($left{0} // %left ? undef : time - $start, $got, $poll,
        scalar keys %left);
}

for my $name (sort keys %source) {
    my ($conf, $publish) = @{$source{$name}};
    subtest "$name: $n clients" => sub {
        my $redis = RT::Redis->new;
        my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
            main => 'worker_rlimit_nofile 12000;',
            events => 'worker_connections 12000;',
            http => "rt_hub app { redis %%REDIS%%; history 64; $conf }",
            server => <<'END');
            access_log off;
            location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
END
        my $request = sub ($i, $id) {
            return "GET /rt/c" . $i % $channels . " HTTP/1.1\r\nHost: a\r\n"
                . "Accept: text/event-stream\r\n"
                . ($id ne '' ? "Last-Event-ID: $id\r\n" : '') . "\r\n";
        };
        get($ngx, "/rt/c$_") for 0 .. $channels - 1;
        if ($conf eq '') { $redis->wait_sub("c$_") for 0 .. $channels - 1 }
        $publish->($redis, "c$_", 'first') for 0 .. $channels - 1;
        wait_for { $channels == grep {
            get($ngx, "/rt/c$_")->body eq 'first' } 0 .. $channels - 1 } 10,
            'all channels are known';

        my ($cold, $got, $poll, $left) = come($ngx,
            sub ($text, $i) { $text =~ /^data: first/m },
            map { $request->($_, '') } 0 .. $n - 1);
        is($left, 0, 'all are there');
        my @id = map { /^id: (\S+)\r?$/m ? $1 : '' } @$got;
        is(scalar(grep { $_ eq '' } @id), 0, 'and have a cursor');
        $poll->close;

        # what they miss
        for my $k (1 .. 3) {
            $publish->($redis, "c$_", "missed $k") for 0 .. $channels - 1;
        }
        wait_for { $channels == grep {
            get($ngx, "/rt/c$_")->body eq 'missed 3' } 0 .. $channels - 1 } 10,
            'the node has it';
        my $before = calls($redis);
        (my $warm, $got, $poll, $left) = come($ngx,
            sub ($text, $i) { $text =~ /^data: missed 3/m },
            map { $request->($_, $id[$_]) } 0 .. $n - 1);
        is($left, 0, 'all are resumed');
        my @bad = grep {
            join(' ', /^data: (.*?)\r?$/mg) ne 'missed 1 missed 2 missed 3'
                || /rt\.gap/ } @$got;
        is(scalar @bad, 0, 'each with the three that it missed, and no gap')
            or diag($bad[0]);
        # a feeder of streams looks at each quiet one now and then
        my $more = calls($redis) - $before;
        cmp_ok($more, '<=', $conf eq '' ? 0 : 2 * $channels * $warm,
            "Redis ran $more commands meanwhile, none for a client");
        note(sprintf '%s: %d clients, cold %.2f s, with cursors %.2f s: '
            . 'ratio %.2f', $name, $n, $cold // 0, $warm // 0,
            ($warm // 0) / ($cold || 1));
        cmp_ok($warm // 999, '<', 3 * ($cold // 0) + RT::scale(1),
            'in about the time of a cold connect');
        $poll->close;
    };
}

done_testing;
