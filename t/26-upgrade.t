# nginx ends, or becomes another one, with streams open: QUIT, TERM,
# worker_shutdown_timeout, a binary upgrade and its rollback.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Time::HiRes qw(time);
use RT;
use RT::Daemon;

sub hub ($ngx) { decode_json(get($ngx, '/status')->body)->{hubs}[0] }

sub told (@events) {
    return join ' ', map {
        $_->{event} eq 'rt.gap'
            ? 'gap:' . ($_->{data} =~ /"reason":"([^"]*)"/ ? $1 : '?')
            : $_->{data} } @events;
}

sub placed (@streams) {
    return wait_for {
        RT::SSE::pump(0.02, @streams);
        !grep { $_->last_id eq '' } @streams;
    } 5, 'places';
}

my $http = 'rt_hub app { redis %%REDIS%%; history 4000; %%MORE%% }';
my $server = <<'END';
    rt_stream_log %%DIR%%/end.log;
    location ~ ^/rt/(?<channel>.+)$ { rt_subscribe app $channel; }
    location /status { rt_status json; }
END

# what a stream of each channel is given while it lasts, under 200 messages a
# second, from when ACTION was done
sub through_the_end ($redis, $action, $seconds, @sse) {
    my ($sent, $start) = (0, time);
    $action->();
    RT::poll_until(sub {
        while ($sent < (time - $start) * 200) {
            $redis->publish(c => $sent++);
        }
        RT::SSE::pump(0.01, grep { !$_->ended(0) } @sse);
        !grep { !$_->ended(0) } @sse;
    }, $seconds);
    my $took = time - $start;
    return ($sent, $took, map { told($_->wait(1e6, 0)) } @sse);
}

for my $case (
    # how, the configuration, what to do, the bounds of its time, clean
    ['QUIT', '', 'QUIT', 1, 2.5, 1, 'drain'],
    ['TERM', '', 'TERM', 0, 1, 0, ''],
    ['QUIT and then TERM', '', 'QUIT TERM', 0, 1, 0, ''],
    ['QUIT, worker_shutdown_timeout', 'worker_shutdown_timeout 600ms;',
        'QUIT', 0.5, 1.5, undef, 'drain'],
    ['reload, worker_shutdown_timeout', 'worker_shutdown_timeout 600ms;',
        'HUP', 0.5, 1.8, undef, 'drain'])
{
    my ($name, $main, $signals, $least, $most, $clean, $why) = @$case;
    # which looks for leaks at the exit, for longer than the master waits
    next if $name =~ /TERM/ && asan();
    subtest $name => sub {
        my $redis = RT::Redis->new;
        my $ngx = RT::Nginx->new(redis => $redis, workers => 3,
            main => $main, http => $http, vars => { MORE => '' },
            server => ($main || $signals =~ /T T|^T/ ? 'rt_drain 1h;'
                                                     : 'rt_drain 2s;') . $server);
        my @sse = map { RT::SSE->new($ngx, '/rt/c') } 1 .. 60;
        placed(@sse);
        $redis->wait_sub('c');
        my ($sent, $took, @got) = through_the_end($redis, sub {
            for my $signal (split / /, $signals) {
                $ngx->signal($signal);
                wait_for { $ngx->old_workers } 5, 'asked to quit'
                    if $signals =~ /QUIT T/ && $signal eq 'QUIT';
            }
        }, $most + 5, @sse);
        ok($took >= $least && $took < RT::scale($most),
            sprintf 'all streams end, in %.2f s', $took);
        my $n = grep { $_->clean } @sse;
        is($n, $clean ? 60 : 0, 'cleanly or cut') if defined $clean;
        my @wrong = grep {
            my @numbers = split / /;
            $_ ne join ' ', 0 .. $#numbers;
        } @got;
        is(scalar @wrong, 0, "each has the first of $sent messages, in order")
            or diag($wrong[0]);
        my $whole = grep { split(/ /) > $sent / 2 } @got;
        cmp_ok($whole, '>', 0, "$whole of 60 have more than half of them")
            if $clean;
        if ($signals eq 'HUP') {
            my @back = map { RT::SSE->new($ngx, '/rt/c',
                last => $_->last_id) } @sse;
            $redis->publish(c => 'end');
            wait_for {
                RT::SSE::pump(0.02, @back);
                60 == grep { ($_->{events}[-1] // {})->{data} eq 'end' }
                    @back;
            } 5, 'the end';
            my $want = join ' ', 0 .. $sent - 1, 'end';
            is(scalar(grep { "$got[$_] " . told($back[$_]->wait(1e6, 0))
                =~ s/^ //r ne $want } 0 .. 59), 0,
                'what they miss they get when they come back');
            wait_ok { !$ngx->old_workers } 3, 'old workers are gone';
        } else {
            wait_ok { !RT::running($ngx->pid) } 5, 'nginx is gone';
            is(scalar(RT::group($ngx->pid)), 0, 'with all of it');
            # QUIT and TERM: nginx itself, until 1.25, complains of each
            # connection of a client that is cut
            my @bad = $ngx->_complaints;
            my @cut = grep { /open socket #\d+ left in connection/ } @bad;
            is(join(' ', grep { !/open socket #\d+ left|aborting/ } @bad), '',
                'without an alert');
            cmp_ok(scalar @cut, '<=', $signals =~ / / ? 60 : 0,
                'of sockets, too');
            $ngx->{stopped} = 1;
        }
        my @why = slurp($ngx->dir . '/end.log') =~ / (\S+)$/mg;
        is(scalar(grep { $_ eq $why } @why), 60, "the log says why: $why")
            if $why;
    };
}

if (!RT::Daemon::possible()) {
    note('no binary upgrade: this machine has no subreaper');
    done_testing;
    exit 0;
}

# Two masters are two zones: an epoch each, the cursors of the one are unknown
# to the other, which matches the message by its digest, or tells a gap.

# a client that reconnects; what it got, and whether anything is missing that
# no gap tells
package Client {
    use v5.36;
    sub new ($class, $ngx, $path) {
        my $self = bless { ngx => $ngx, path => $path, got => [] }, $class;
        $self->connect;
        return $self;
    }
    sub connect ($self, $id = undef) {
        $self->{connects}++;
        $self->{sse} = eval { RT::SSE->new($self->{ngx}, $self->{path},
            wait_head => 0, last => $id) };
    }
    sub turn ($self) {
        my $sse = $self->{sse};
        my $id = $self->{id};
        if ($sse) {
            push @{$self->{got}}, $sse->wait(1e6, 0);
            $id = $self->{id} = $sse->last_id if $sse->last_id ne '';
            return if !$sse->ended(0);
        }
        $self->connect($id);
    }
    # numbers missing without a gap, numbers twice, gaps
    sub judge ($self, $sent) {
        my ($lost, $twice, $gaps, $next, $told) = (0, 0, 0, 0, 0);
        for my $e (@{$self->{got}}) {
            if ($e->{event} eq 'rt.gap') { $gaps++; $told = 1; next }
            $lost += $e->{data} - $next if $e->{data} > $next && !$told;
            # after a gap the latest comes, known or not
            $twice++ if $e->{data} < $next && !$told;
            $next = $e->{data} + 1 if $e->{data} >= $next;
            $told = 0;
        }
        $lost += $sent - $next if $next < $sent;
        return ($lost, $twice, $gaps);
    }
}

sub fds ($pid) { return scalar(() = glob "/proc/$pid/fd/*") }

sub zones ($pid) {
    return scalar grep { m{/dev/zero} } split /\n/, slurp("/proc/$pid/maps");
}

sub with_load ($ngx, $redis, $clients) {
    my ($sent, $start) = (0, time);
    return sub ($what, $seconds, $cond) {
        my $ok = RT::poll_until(sub {
            while ($sent < (time - $start) * 200) {
                $redis->publish(c => $sent++);
            }
            RT::SSE::pump(0.01, grep { $_ } map { $_->{sse} } @$clients);
            $_->turn for @$clients;
            $cond->($sent);
        }, $seconds);
        ok($ok, $what);
        return $sent;
    };
}

sub caught_up ($clients) {
    return sub ($sent) {
        !grep { my $last = ($_->{got}[-1] // {})->{data} // '';
                $last !~ /^\d+$/ || $last < $sent - 20 } @$clients;
    };
}

# the last message of each client is one that the new master has, too
sub both_know ($run, $clients) {
    my $from;
    $run->('both know what the clients have', 5, sub ($sent) {
        $from //= $sent;
        !grep { $_->{got}[-1]{data} < $from } @$clients;
    });
}

sub start ($more, $drain = '1s') {
    my $redis = RT::Redis->new;
    my $ngx = RT::Daemon->new(redis => $redis, workers => 2, http => $http,
        vars => { MORE => $more }, server => "rt_drain $drain; $server");
    my @clients = map { Client->new($ngx, '/rt/c') } 1 .. 30;
    placed(map { $_->{sse} } @clients);
    if ($more) { wait_for { $redis->cmd(PUBSUB => 'NUMPAT') } 5, 'fed' }
    else       { $redis->wait_sub('c') }
    return ($redis, $ngx, \@clients, with_load($ngx, $redis, \@clients));
}

sub verdict ($clients, $sent, $gaps) {
    my @sum = (0, 0, 0);
    for my $client (@$clients) {
        my @j = $client->judge($sent);
        $sum[$_] += $j[$_] for 0 .. 2;
    }
    is($sum[0], 0, "$sent messages: none lost in silence");
    is($sum[1], 0, 'none twice');
    is($sum[2], 0, 'no gap') if !$gaps;
    note("$sum[2] gaps for 30 clients");
    return $sum[2];
}

# the channel is known to the new master before the first client comes, so
# that the digest of a client's last message is found
subtest 'an upgrade, the new master warm' => sub {
    my ($redis, $ngx, $clients, $run) = start("subscribe 'c*';");
    my $old = $ngx->pid;
    $run->('before', 5, caught_up($clients));
    my $new = $ngx->upgrade;
    $run->('two masters feed', 5, sub ($sent) {
        $redis->cmd(PUBSUB => 'NUMPAT') && 2 == grep { $_->{sub} || $_->{psub} }
            $redis->clients });
    both_know($run, $clients);
    kill WINCH => $old;
    $run->('the old workers go', 5, sub ($sent) { !$ngx->workers($old) });
    $run->('and end', 8, sub ($sent) { !$ngx->old_workers });
    kill QUIT => $old;
    $run->('the old master ends', 5, sub ($sent) { !$ngx->alive($old) });
    $ngx->pid($new);
    my $sent = $run->('all go on', 5, caught_up($clients));
    is(scalar(grep { $_->{connects} != 2 } @$clients), 0, 'each moved once');
    verdict($clients, $sent - 20, 0);
    is(hub($ngx)->{feed}{state}, 'live', 'live');
    is(scalar(grep { $_->{sub} || $_->{psub} } $redis->clients), 1,
        'one feed is left');
    $ngx->stop;
};

subtest 'an upgrade, the new master cold; and straight by QUIT' => sub {
    my ($redis, $ngx, $clients, $run) = start('');
    my $old = $ngx->pid;
    $run->('before', 5, caught_up($clients));
    my $new = $ngx->upgrade;
    kill QUIT => $old;
    $run->('the old master ends', 8, sub ($sent) { !$ngx->alive($old) });
    $ngx->pid($new);
    my $sent = $run->('all go on', 5, caught_up($clients));
    my $gaps = verdict($clients, $sent - 20, 1);
    cmp_ok($gaps, '>', 0, 'those that came first are told');
    $ngx->stop;
};

subtest 'a rollback' => sub {
    my ($redis, $ngx, $clients, $run) = start("subscribe 'c*';");
    my $old = $ngx->pid;
    $run->('before', 5, caught_up($clients));
    my $epoch = substr $clients->[0]{id}, 0, 8;
    my $new = $ngx->upgrade;
    $run->('two masters feed', 5, sub ($sent) {
        2 == grep { $_->{sub} || $_->{psub} } $redis->clients });
    kill WINCH => $old;
    $run->('the old workers go', 5, sub ($sent) { !$ngx->workers($old) });
    $run->('half of the clients have moved', 5, sub ($sent) {
        15 <= grep { $_->{connects} > 1 } @$clients });
    kill HUP => $old;
    $run->('the old master has workers again', 5,
        sub ($sent) { $ngx->workers($old) == 2 });
    kill QUIT => $new;
    $run->('the new one ends', 8, sub ($sent) { !$ngx->alive($new) });
    $run->('and the old workers', 8, sub ($sent) { !$ngx->old_workers });
    my $sent = $run->('all go on', 5, caught_up($clients));
    verdict($clients, $sent - 20, 1);
    is(scalar(grep { substr($_->{id}, 0, 8) ne $epoch } @$clients), 0,
        'in the zone of the beginning');
    my $hub = hub($ngx);
    is($hub->{feed}{state}, 'live', 'which is live');
    $ngx->stop;
};

subtest 'five upgrades leave nothing behind' => sub {
    my ($redis, $ngx, $clients, $run) = start("subscribe 'c*';", '300ms');
    $run->('before', 5, caught_up($clients));
    my ($fds, $zones) = (fds($ngx->pid), zones($ngx->pid));
    my @worker;
    for my $round (1 .. 5) {
        my $old = $ngx->pid;
        my $new = $ngx->upgrade;
        $run->("round $round: two masters feed", 5, sub ($sent) {
            2 == grep { $_->{sub} || $_->{psub} } $redis->clients });
        both_know($run, $clients);
        kill QUIT => $old;
        $run->('the old master ends', 8, sub ($sent) { !$ngx->alive($old) });
        $ngx->pid($new);
        push @worker, fds(($ngx->workers)[0]);
    }
    my $sent = $run->('all go on', 5, caught_up($clients));
    verdict($clients, $sent - 20, 0);
    is(fds($ngx->pid), $fds, "$fds descriptors of the master, as before");
    is(zones($ngx->pid), $zones, "$zones zones, as before");
    my @sorted = sort { $a <=> $b } @worker;
    cmp_ok($sorted[-1] - $sorted[0], '<', 40, "of a worker: @worker");
    is(scalar($ngx->masters), 1, 'one master');
    $ngx->stop;
};

done_testing;
