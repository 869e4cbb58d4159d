# Thousands of polls that wait: one publish releases them all in little more
# than a bare loop of send() needs, they cost little memory while they are held
# and while their answer is sent, and leave nothing.  5,000 on one channel.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Open2 qw(open2);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);
use RT;

need(qw(gcc redis-server));

my $n = asan() ? 300 : 5000;
my $rounds = 9;

my $held = dir() . '/held';
is(system(qw(gcc -O2 -Wall -Wextra -Werror -o), $held,
        root() . '/t/lib/held.c'), 0, 'held.c is built')
    or BAIL_OUT('no client');

# t/lib/held.c: a process that answers commands; ends when it is not read any
# more
package Held {
    sub start ($class, @args) {
        my $pid = IPC::Open2::open2(my $out, my $in, $held, @args);
        return bless { pid => $pid, in => $in, out => $out }, $class;
    }

    sub cmd ($self, @words) {
        $self->{in}->print("@words\n");
        $self->{in}->flush;
        my @answer = split / /, readline($self->{out}) =~ s/\n\z//r;
        return wantarray ? @answer : $answer[0];
    }

    # (left, first, last)
    sub gather ($self, $seconds) {
        return $self->cmd(gather => int 1000 * RT::scale($seconds));
    }

    # what each of them got, or how they differ
    sub got ($self) {
        my ($n, $kinds, $extra, undef, @first) = $self->cmd('check');
        return $kinds == 1 && $extra == 0 ? ($n, @first)
            : ($n, "in $kinds kinds, $extra bytes too many, @first");
    }

    # (closed by the server, got an answer)
    sub closed ($self) { return ($self->cmd('check'))[3, 0] }

    sub end ($self) {
        close $self->{in};
        waitpid $self->{pid}, 0;
        return $?;
    }
}

package main;

my $redis = RT::Redis->new;

sub start (%more) {
    return RT::Nginx->new(redis => $redis, workers => 2,
        main => 'worker_rlimit_nofile 12000; worker_shutdown_timeout 30s;',
        events => 'worker_connections 12000;',
        http => 'rt_hub app { redis %%REDIS%%; }',
        server => <<'END', %more);
        listen 127.0.0.1:%%PORT1%% backlog=4096;
        access_log off;
        keepalive_timeout 300s;
        keepalive_requests 100000;
        location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel;
                                          rt_wait 60s; }
        location = /stub { stub_status; }
END
}

# requests that are under way, but for the one that asks; connections as well
sub stub ($ngx) {
    my $body = get($ngx, '/stub')->body;
    my ($active) = $body =~ /^Active connections: (\d+)/m;
    my ($reading, $writing) = $body =~ /Reading: (\d+) Writing: (\d+)/;
    return ($reading + $writing - 1, $active - 1);
}

sub known ($ngx, $text) {
    get($ngx, '/rt/a');
    $redis->wait_sub('a');
    $redis->publish(a => $text);
    wait_for { get($ngx, '/rt/a')->body eq $text } 5, "$text is known";
}

sub all_held ($ngx, $client, $text = "$n are held") {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return wait_ok { (stub($ngx))[0] == $n } 20, $text;
}

sub rss ($ngx) {
    my $sum = 0;
    $sum += $ngx->rss($_) for $ngx->workers;
    return $sum;
}

sub median (@list) { return (sort { $a <=> $b } @list)[$#list / 2] }

subtest 'released by one publish' => sub {
    my $ngx = start();
    my $client = Held->start('client');
    known($ngx, 'body 0');
    $client->cmd(connect => $n, $ngx->port(1));
    $client->cmd(ask => '/rt/a', 0);
    is(($client->gather(20))[0], 0, 'all know the version');
    my @got = $client->got;
    is("@got[0, 1, 3, 4]", "$n 200 body 0", 'the same');
    my $etag = $got[2];
    is(scalar $client->cmd(ask => '/rt/a', 60), $n, 'they poll again');
    all_held($ngx, $client);

    # so many bytes to as many connections
    known($ngx, 'body 1');
    is(($client->gather(20))[0], 0, 'and are released');
    $client->got;
    $client->cmd(save => dir() . '/answer');
    my $port = RT::free_port();
    my $bare = Held->start('bare', $port, 2, $redis->port, 'bare');
    cmp_ok(scalar $bare->cmd(answer => dir() . '/answer'), '>', 100,
        'the answer');
    $redis->wait_sub('bare', 2);
    my $least = Held->start('client');
    $least->cmd(connect => $n, $port);

    my (@ours, @bare, @wrong);
    for my $round (2 .. $rounds + 1) {
        my $begin = sub ($c, $ready) {
            my $asked = $c->cmd(ask => '/rt/a', 60);
            push @wrong, "$round: only $asked ask" if $asked != $n;
            RT::poll_until($ready, 20) or push @wrong, "$round: not all held";
        };
        my $go = sub ($c, $channel, $times) {
            my $at = 1e9 * clock_gettime(CLOCK_MONOTONIC);
            $redis->publish($channel => "body $round");
            my ($left, $first, $last) = $c->gather(20);
            push @wrong, "$round: $left have no answer" if $left;
            push @$times, ($last - $at) / 1e6;
        };
        $begin->($least, sub { $bare->cmd('held') == $n });
        $go->($least, 'bare', \@bare);
        $begin->($client, sub { (stub($ngx))[0] == $n });
        $go->($client, 'a', \@ours);

        @got = $client->got;
        push @wrong, "$round: @got"
            if "@got[0, 1, 3, 4]" ne "$n 200 body $round"
                || ($got[2] // '') eq $etag;
        $etag = $got[2];
        @got = $least->got;
        push @wrong, "$round, bare: @got" if "@got[0, 1]" ne "$n 200";
    }
    is_deeply(\@wrong, [],
        "$rounds times on one connection: each a 200, once, with the body "
        . 'and another ETag');
    is(($client->closed)[0], 0, 'no connection was closed');

    my ($ours, $loop) = (median(@ours), median(@bare));
    note(sprintf 'ms, ours: %s', join ' ', map { sprintf '%.1f', $_ } @ours);
    note(sprintf 'ms, bare: %s', join ' ', map { sprintf '%.1f', $_ } @bare);
    # where the bare loop is held up by others, so are we
    my ($best) = sort { $a <=> $b } @bare;
    cmp_ok($ours - $loop, '<=', RT::scale(100) * $loop / $best,
        sprintf '%.1f ms from the publish to the last, a bare loop %.1f ms',
        $ours, $loop);
    $_->end for $least, $bare, $client;
};

# of one worker: of two, each would keep the most that it ever had
for my $pool ('4k', '2k') {
    # what a sanitizer takes is no measure
    subtest "what it costs, and what is left: request_pool_size $pool"
        => sub { cost($pool) } if !asan();
}

sub cost ($pool) {
    my $ngx = start(workers => 1, http => 'rt_hub app { redis %%REDIS%%; } '
        . "request_pool_size $pool;");
    my $client = Held->start('client');
    known($ngx, 'body 0');
    get($ngx, '/rt/a') for 1 .. 20;
    my $base = rss($ngx);
    $client->cmd(connect => $n, $ngx->port(1));
    $client->cmd(ask => '/rt/a', 0);
    is(($client->gather(20))[0], 0, 'all have asked once');
    $client->got;
    wait_for { (stub($ngx))[0] == 0 } 5, 'and are idle';
    my $idle = rss($ngx);
    $client->cmd(ask => '/rt/a', 60);
    all_held($ngx, $client);
    my $most = rss($ngx);
    my ($per_idle, $per_held) = map { ($_ - $base) * 1024 / $n } $idle, $most;
    cmp_ok($per_held, '<', $pool eq '4k' ? 11_000 : 9_000,
        sprintf '%d bytes each, an idle connection %d', $per_held, $per_idle);

    for my $k (1 .. 3) {
        $client->cmd('close');
        wait_ok { (stub($ngx))[1] == 0 } 10, 'they hang up, nothing is left';
        $client->cmd(connect => $n, $ngx->port(1));
        $client->cmd(ask => '/rt/a', 0);
        is(($client->gather(20))[0], 0, 'others come');
        $client->got;
        $client->cmd(ask => '/rt/a', 60);
        all_held($ngx, $client);
    }
    my $more = rss($ngx) - $most;
    cmp_ok($more * 1024, '<', $n * 200, "three times: $more KB more");
    $redis->publish(a => 'body 1');
    is(($client->gather(20))[0], 0, 'who is there is answered');
    is("@{[($client->got)[0, 1, 3, 4]]}", "$n 200 body 1", 'rightly');
    $client->end;
    wait_ok { (stub($ngx))[1] == 0 } 10, 'and leaves';
}

subtest 'a reload' => sub {
    my $ngx = start();
    my $client = Held->start('client');
    known($ngx, 'body 0');
    $client->cmd(connect => $n, $ngx->port(1));
    $client->cmd(ask => '/rt/a', 0);
    is(($client->gather(20))[0], 0, 'all know the version');
    $client->got;
    $client->cmd(ask => '/rt/a', 60);
    all_held($ngx, $client);
    my @old = $ngx->workers;
    my $start = clock_gettime(CLOCK_MONOTONIC);
    $ngx->reload;
    is(($client->gather(20))[0], 0, 'all are answered');
    my $took = clock_gettime(CLOCK_MONOTONIC) - $start;
    cmp_ok($took, '<', RT::scale(10), sprintf 'in %.2f s', $took);
    my @got = $client->got;
    is("@got[0, 1]", "$n 304", 'by 304');
    wait_ok { ($client->gather(1), $client->closed)[3] == $n } 10,
        'their connections are closed';
    wait_ok { !$ngx->old_workers } 10, 'the old workers are gone';
    $client->cmd('close');
    $client->cmd(connect => $n, $ngx->port(1));
    $client->cmd(ask => '/rt/a', 0);
    is(($client->gather(20))[0], 0, 'they come again');
    $client->got;
    $client->cmd(ask => '/rt/a', 60);
    wait_ok { (stub($ngx))[0] >= $n } 20, 'and are held';

    # a message while the workers change
    $ngx->signal('HUP');
    $redis->publish(a => 'body 1');
    is(($client->gather(20))[0], 0, 'a reload with a message: all answered');
    wait_for { my @now = $ngx->workers;
        @now == 2 && !$ngx->old_workers } 20, 'reloaded';
    $client->cmd('close');
    $client->cmd(connect => $n, $ngx->port(1));
    $client->cmd(ask => '/rt/a', 0);
    is(($client->gather(20))[0], 0, 'they come again');
    is("@{[($client->got)[0, 1, 3, 4]]}", "$n 200 body 1", 'all know it');
    $client->end;
};

# A worker has a large body once, however many are being given it.  Little of
# it fits into the sockets; what does is the kernel's.
subtest 'large answers that are not taken' => sub {
    my $size = 200_000;
    my $many = asan() ? 30 : 200;
    my $ngx = start(workers => 1, server => <<'END');
        listen 127.0.0.1:%%PORT1%% backlog=4096 sndbuf=16k;
        location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
        location = /stub { stub_status; }
END
    my ($worker) = $ngx->workers;
    known($ngx, 'a' x $size);
    my $hold = sub ($count, $others) {
        my $etag = get($ngx, '/rt/a')->header('ETag');
        my @polls = map { RT::HTTP->new($ngx->port(1)) } 1 .. $count;
        $_->send('GET', '/rt/a', headers => [Prefer => 'wait=30',
            'If-None-Match' => $etag]) for @polls;
        wait_for { (stub($ngx))[0] == $count + $others } 20,
            "$count are held";
        return @polls;
    };
    my $come = sub (@polls) {
        for (@polls) {
            my $bits = '';
            vec($bits, fileno $_->{sock}, 1) = 1;
            select($bits, undef, undef, RT::scale(5)) or return 0;
        }
        return 1;
    };
    my $rightly = sub ($text, @polls) {
        return scalar grep { my $r = $_->read(timeout => 20);
            $r->status == 200 && $r->body eq $text } @polls;
    };

    my @first = $hold->($many, 0);
    my $before = $ngx->rss($worker);
    $redis->publish(a => 'b' x $size);
    ok($come->(@first), "$many are being answered, none reads on");
    is((stub($ngx))[0], $many, 'none is answered in whole');
    my $more = $ngx->rss($worker) - $before;
    cmp_ok($more, '<', 4096, "for all of which a worker needs $more KB")
        if !asan();

    # two versions at once
    my @second = $hold->(10, $many);
    $redis->publish(a => 'c' x $size);
    ok($come->(@second), 'others are given another message');
    is($rightly->('c' x $size, @second), 10, 'they get it');
    # the first one that had it goes: the others still need it
    $_->close for splice @first, 0, 10;
    wait_for { (stub($ngx))[0] == @first } 5, 'some of the first hang up';
    is($rightly->('b' x $size, @first), scalar @first,
        'all others get the first');
    is(get($ngx, '/rt/a')->body, 'c' x $size, 'who comes later the second');

    # what was freed is not looked for any more: another body is there now
    get($ngx, '/rt/b,none');
    $redis->wait_sub('b');
    $redis->publish(b => 'd' x $size);
    wait_for { get($ngx, '/rt/b')->body eq 'd' x $size } 5, 'one elsewhere';
    is(get($ngx, '/rt/a')->body, 'c' x $size, 'a last one');
    my $list = RT::HTTP->new($ngx->port(1));
    $list->send('GET', '/rt/b,none');
    ok($come->($list), 'its memory is taken');
    is(get($ngx, '/rt/a')->body, 'c' x $size, 'the next one is right');
    isnt(index($list->read(timeout => 20)->body, '"' . 'd' x $size . '"'), -1,
        'as is the other');

    # by one after the other, too, and nothing is left of it
    my $one = sub ($k) {
        my $text = sprintf '%03d', $k;
        $redis->publish(a => $text . 'e' x $size);
        return RT::poll_until(sub {
            return get($ngx, '/rt/a')->body eq $text . 'e' x $size }, 5);
    };
    $one->($_) for 1 .. 20;
    $before = $ngx->rss($worker);
    is(scalar(grep { $one->($_) } 21 .. 70), 50, 'fifty after each other');
    $more = $ngx->rss($worker) - $before;
    cmp_ok($more, '<', 2048, "which leave $more KB") if !asan();
};

done_testing;
