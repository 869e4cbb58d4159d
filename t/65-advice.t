# Viewers, counted on the node: clients that poll, with kept connections and
# without, and streams; and the advice that follows.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use JSON::PP qw(decode_json);
use Time::HiRes qw(time sleep);

my $ngx = RT::Nginx->new(workers => 2, http => 'rt_hub app { zone 8m; }',
    server => <<'END');
    rt_poll_interval 1s 3s;
    location ~ ^/rt/(?<channel>.+)$ {
        rt_subscribe app $channel; add_header X-Advice $rt_advice always;
        rt_advise viewers=50 interval=1s;
    }
    location ~ ^/few/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_advise viewers=3 interval=1s;
    }
    location ~ ^/poll/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_transport poll;
        rt_advise viewers=1;
    }
    location ~ ^/slow/(?<channel>.+)$ {
        rt_subscribe app $channel; rt_advise viewers=1000 interval=2s;
    }
    location ~ ^/pub/(?<channel>.+)$ { rt_publish app $channel; }
    location = /status { rt_status json; }
END

sub busiest () {
    return @{decode_json(get($ngx, '/status')->body)->{hubs}[0]{busiest}};
}

sub viewers ($channel) {
    my ($c) = grep { $_->{channel} eq $channel } busiest();
    return $c ? $c->{viewers} : 0;
}

sub advice ($path) { return get($ngx, $path)->header('RT-Advice') }

is_deeply([busiest()], [], 'nobody');

# streams

my @streams = map { RT::SSE->new($ngx, '/few/s') } 1 .. 2;
is(viewers('s'), 2, 'two streams');
push @streams, RT::SSE->new($ngx, '/few/s');
is(advice('/few/s'), 'sse', 'three streams of three');
is(advice('/rt/s'), 'poll', 'of fifty');
is(advice('/poll/s'), 'poll', 'where there is nothing but polls');
my ($c) = busiest();
is($c->{channel}, 's', 'the busiest channel');
is($c->{advice}, 'poll', 'by the defaults');
$_->close for @streams;
wait_ok { viewers('s') < 3 } 5, 'the streams are gone';

# changes

post($ngx, '/pub/fast', "m$_") for 1 .. 5;
is(advice('/slow/fast'), 'sse', 'changes often');
my ($fast) = grep { $_->{channel} eq 'fast' } busiest();
cmp_ok($fast->{messages_per_s}, '>', 1, 'as the status tells');
is($fast->{advice}, 'sse', 'with its advice');
my $r = get($ngx, '/rt/fast');
is($r->header('X-Advice'), $r->header('RT-Advice'), '$rt_advice');
wait_ok { advice('/slow/fast') eq 'poll' } 10, 'not any more';

# who asks for headers is no viewer: a page that streams looks so by the way

my $kept = RT::HTTP->new($ngx);
my $ask = sub ($method) {
    for (1 .. 20) {
        $kept->send($method => '/rt/asked');
        $kept->read;
        sleep 0.05;
    }
};
$ask->('HEAD');
is(viewers('asked'), 0, 'HEAD is none');
$ask->('GET');
is(viewers('asked'), 1, 'GET is one');

# 60 clients each, in four ways

my %ways = (
    kept1  => { gap => 1, keep => 1 },
    kept3  => { gap => 3, keep => 1 },
    new1   => { gap => 1, change => 5 },
    follow => { keep => 1, change => 5 },
);
my @clients;
for my $way (sort keys %ways) {
    push @clients, { way => $way, %{$ways{$way}},
        next => time + rand($ways{$way}{gap} // 2) } for 1 .. 60;
}

sub poll ($c) {
    my $http = $c->{http} // RT::HTTP->new($ngx);
    $http->send(GET => "/rt/$c->{way}", headers =>
        [$c->{etag} ? ('If-None-Match' => $c->{etag}) : ()]);
    my $r = $http->read;
    $c->{etag} = $r->header('ETag');
    $c->{advice} = $r->header('RT-Advice');
    if ($c->{keep}) { $c->{http} = $http } else { $http->close }
    $c->{next} = time + ($c->{gap} // $r->header('RT-Poll-Interval'));
}

my %changed;

sub clients ($seconds) {
    my $end = time + $seconds;
    while ((my $now = time) < $end) {
        for my $way (grep { $ways{$_}{change} } keys %ways) {
            next if $now < ($changed{$way} // 0) + $ways{$way}{change};
            $changed{$way} = $now;
            post($ngx, "/pub/$way", "at $now");
        }
        poll($_) for grep { $_->{next} <= $now } @clients;
        sleep 0.01;
    }
}

sub near ($n, $when) {
    for my $way (sort keys %ways) {
        my $v = viewers($way);
        ok($v >= 0.8 * $n && $v <= 1.2 * $n,
            "$way: $n clients $when, $v are seen");
    }
}

clients(14);
near(60, 'after a while');
is((grep { $_->{advice} eq 'sse' } @clients), 240, 'advice: too many');
($c) = grep { $_->{channel} eq 'kept1' } busiest();
cmp_ok($c->{polls_per_s}, '>', 48, "polls per second: $c->{polls_per_s}");
cmp_ok($c->{polls_per_s}, '<', 72, 'of 60');

my %n;
$_->{http} && $n{$_->{way}} % 2 && $_->{http}->close
    for map { $n{$_->{way}}++; $_ } @clients;
%n = ();
@clients = grep { $n{$_->{way}}++ % 2 } @clients;
clients(35);
near(30, 'left');
is((grep { $_->{advice} eq 'poll' } @clients), 120, 'advice: poll again');

done_testing;
