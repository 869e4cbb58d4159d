# Detached streams and the life of processes: they are no idle connections to
# nginx, are counted right, and do not hold a worker that is to go.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;
use RT::Wire;

my $server = <<'END';
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe mem $channel; }
    location ~ ^/off/(?<channel>\w+)$ {
        rt_detach off; rt_subscribe mem $channel;
    }
    location = /publish { rt_publish mem $arg_channel; }
    location = /status { rt_status json; }
    location = /stub { stub_status; }
    location = /small { return 200 "small\n"; }
END
my $http = 'rt_hub mem { zone 16m; message_max 1m; }
    client_max_body_size 2m; rt_heartbeat 10m;
    rt_stream_log %%DIR%%/logs/stream.log;';

sub placed (@w) {
    return wait_for {
        $_->read(0) for @w;
        @w == grep { $_->body =~ /\nid: \S+\n\n/ } @w;
    } 10, 'places';
}

sub publish ($ngx, $channel, $data) {
    my $r = post($ngx, "/publish?channel=$channel", $data);
    die 'publish: ' . $r->status if $r->status != 202;
}

sub stub ($ngx) {
    my $text = get($ngx, '/stub')->body;
    my %n;
    @n{qw(active reading writing waiting)} = $text =~
        /connections: (\d+).*Reading: (\d+) Writing: (\d+) Waiting: (\d+)/s;
    return \%n;
}

sub open_streams ($ngx) {
    return decode_json(get($ngx, '/status')->body)
        ->{hubs}[0]{streams}{sse}{open};
}

subtest 'counted' => sub {
    my $ngx = RT::Nginx->new(workers => 1, http => "$http rt_drain 100ms;",
        server => $server);
    is_deeply(stub($ngx), { active => 1, reading => 0, writing => 1,
        waiting => 0 }, 'one connection asks');
    my @on = map { RT::Wire->new($ngx, '/rt/a') } 1 .. 20;
    my @off = map { RT::Wire->new($ngx, '/off/a') } 1 .. 10;
    placed(@on, @off);
    wait_for { stub($ngx)->{writing} == 11 } 5, 'detached';
    is_deeply(stub($ngx), { active => 31, reading => 0, writing => 11,
        waiting => 0 }, 'those that are detached write nothing');
    is(open_streams($ngx), 30, 'all are open');
    publish($ngx, a => 'x');
    ok($_->wait(qr/data: x\n\n/), 'served') for $on[0], $off[0];
    $_->close for @on[0 .. 4], @off[0 .. 4];
    $_->reset for @on[5 .. 9];
    wait_ok { open_streams($ngx) == 15 } 5, 'half of them left';
    wait_ok { stub($ngx)->{active} == 16 } 5, 'and their connections';
    $ngx->reload;
    $_->whole for @on[10 .. 19], @off[5 .. 9];
    wait_ok { open_streams($ngx) == 0 } 5, 'none is left';
    # the old worker's are counted until it is gone
    wait_ok { stub($ngx)->{active} == 1 } 5, 'nor a connection';
    is_deeply(stub($ngx), { active => 1, reading => 0, writing => 1,
        waiting => 0 }, 'one connection asks');
};

for my $method (qw(epoll poll select)) {
    subtest "events by $method" => sub {
        plan(skip_all => 'is not built in')
            if !nginx_t(http => $http, events => "use $method;");
        my $ngx = RT::Nginx->new(workers => 1, http => "$http rt_drain 100ms;",
            events => "worker_connections 256; use $method;",
            server => $server, allow => [qr/\[warn\]/]);
        for my $path ('/rt', '/off') {
            my $at = $path =~ tr{/}{}dr;
            my %w = map { $_ => RT::Wire->new($ngx, "$path/$_$at") }
                qw(close reset half talk slow stay);
            placed(values %w);
            publish($ngx, "$_$at" => 'x') for keys %w;
            ok($w{$_}->wait(qr/data: x\n\n\z/), "$path: served")
                for keys %w;
            $w{talk}->write("GET / HTTP/1.1\r\n\r\n" x 1000);
            for my $i (1 .. 3) {
                publish($ngx, "talk$at" => $i);
                ok($w{talk}->wait(qr/data: $i\n\n\z/), 'one that talks');
            }
            # more than the buffers take
            publish($ngx, "slow$at" => 'y' x 900_000) for 1 .. 10;
            ok($w{slow}->wait(sub {
                length $w{slow}->body > 9_000_000 || $w{slow}{end} }, 20),
                'one that is slow');
            $w{slow}->framed;
            $w{$_}->$_ for qw(close reset half);
            $w{$_}->close for qw(talk slow);
            wait_ok { open_streams($ngx) == 1 } 5, 'all but one have left';
            publish($ngx, "stay$at" => 'z');
            ok($w{stay}->wait(qr/data: z\n\n\z/), 'which lives');
            $w{stay}->close;
            wait_ok { open_streams($ngx) == 0 } 5, 'then that, too';
        }
    };
}

subtest 'connections run out' => sub {
    my $n = 64;
    my $ngx = RT::Nginx->new(workers => 1, http => "$http rt_drain 100ms;
            keepalive_timeout 60s;",
        events => "worker_connections $n;", server => $server,
        allow => [qr/worker_connections are not enough/]);
    my @w = map { RT::Wire->new($ngx, '/rt/a') } 1 .. $n / 2;
    placed(@w);
    # connections that nginx may close to make room, and then more
    my @idle = map { my $c = RT::HTTP->new($ngx);
        $c->send(GET => '/small'); $c->read; $c } 1 .. $n / 4;
    my @more;
    for (1 .. $n) {
        my $w = eval { RT::Wire->new($ngx, '/rt/a') } // last;
        push @more, $w;
        last if !$w->wait(qr/\nid: \S+\n\n/, 0.3);
    }
    $ngx->wait_log(qr/worker_connections are not enough/);
    # posting needs a connection
    $more[-1]->close;
    pop @more;
    $_->close for splice @more, -4;
    wait_ok { eval { publish($ngx, a => 'still here'); 1 } } 5, 'some room';
    is(scalar(grep { !$_->wait(qr/data: still here\n\n\z/) } @w, @more), 0,
        'no stream was closed for another connection');
    is(scalar(grep { /warn|alert|crit/ && !/worker_connections|reusable/ }
        $ngx->log(qr/./)), 0, 'nothing else is said');
    $_->close for @w, @more;
    $_->close for @idle;
    wait_ok { eval { open_streams($ngx) == 0 } } 5, 'all have left';
};

subtest 'QUIT' => sub {
    for my $case (['pings that are far', 'rt_heartbeat 365d;'],
        ['pings', 'rt_heartbeat 100ms;'],
        ['a lifetime', 'rt_heartbeat 1h; rt_lifetime 1h;'])
    {
        my ($name, $more) = @$case;
        my $ngx = RT::Nginx->new(workers => 2, http =>
            ($http =~ s/rt_heartbeat 10m;//r) . "$more rt_drain 500ms;",
            server => $server);
        my @w = map { RT::Wire->new($ngx, $_ % 3 ? '/rt/a' : '/off/a') }
            1 .. 12;
        placed(@w);
        publish($ngx, a => 'last');
        $_->wait(qr/data: last\n\n/) for @w;
        my $start = time;
        $ngx->quit;
        like($_->whole("$name: QUIT"),
            qr/data: last\n\n(?::\n\n)*retry: \d+\n\n\z/,
            'a retry, then the end') for @w;
        wait_ok { !RT::running($ngx->pid) } 5, "$name: nginx has ended";
        cmp_ok(time - $start, '<', RT::scale(3), 'in time');
        $ngx->{stopped} = 1;
        is(join("\n", $ngx->_complaints), '', 'cleanly');
        is(scalar(() = slurp($ngx->dir . '/logs/stream.log') =~ / drain$/mg),
            12, 'all are told why');
    }
};

subtest 'worker_shutdown_timeout' => sub {
    my $ngx = RT::Nginx->new(workers => 1, http => "$http rt_drain 1h;",
        main => 'worker_shutdown_timeout 500ms;', server => $server);
    my @w = map { RT::Wire->new($ngx, $_ % 2 ? '/rt/a' : '/off/a') } 1 .. 10;
    my $slow = RT::Wire->new($ngx, '/rt/slow', rcvbuf => 4096);
    placed(@w, $slow);
    publish($ngx, slow => 'y' x 900_000) for 1 .. 8;
    my $start = time;
    $ngx->reload;
    wait_for { $ngx->old_workers } 5, 'the old one quits';
    is($_->ended, 'eof', 'closed') for @w;
    wait_ok { !$ngx->old_workers } 5, 'the old worker is gone';
    cmp_ok(time - $start, '<', RT::scale(3), 'in time');
    isnt($slow->ended, '', 'who does not read, too');
    $slow->framed;
    is(open_streams($ngx), 0, 'nobody is left');
};

subtest 'a worker that is killed, TERM' => sub {
    my $ngx = RT::Nginx->new(workers => 1, http => "$http rt_drain 1h;",
        server => $server);
    my @w = map { RT::Wire->new($ngx, $_ % 2 ? '/rt/a' : '/off/a') } 1 .. 10;
    placed(@w);
    my ($pid) = $ngx->workers;
    $ngx->kill_worker(KILL => $pid);
    $_->ended for @w;
    wait_ok { ($ngx->workers)[0] // $pid != $pid } 5, 'another one';
    wait_ok { eval { open_streams($ngx) == 0 } } 5, 'with no streams';
    # nginx leaves connections that are open at TERM to exit()
    return if asan();
    @w = map { RT::Wire->new($ngx, $_ % 2 ? '/rt/a' : '/off/a') } 1 .. 10;
    placed(@w);
    $ngx->signal('TERM');
    isnt($_->ended, '', 'closed') for @w;
    wait_ok { !RT::running($ngx->pid) } 5, 'nginx has ended';
    $ngx->{stopped} = 1;
    is(join("\n", $ngx->_complaints), '', 'cleanly');
};

done_testing;
