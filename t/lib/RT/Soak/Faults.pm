package RT::Soak::Faults;

# What is done to nginx, to Redis and by clients, and when: a plan made of
# the seed before anything begins.
#
# With source pubsub phases of two kinds take turns.  In a gentle one there is
# nothing that cuts the feed, so nobody may be told a gap; in a rough one
# there is everything.  Every minute has some seconds without a fault.

use v5.36;
use List::Util qw(sum0 max);
use Time::HiRes qw(time);

# weights; which are rough; which need a Redis
my %faults = (
    reload        => [4, 0, 0],
    reload_twice  => [2, 0, 0],
    reload_broken => [1, 0, 0],
    reload_other  => [2, 0, 0],     # something else is changed
    kill_worker   => [2, 0, 0],     # in a gentle phase not the feeder
    stop_worker   => [1, 1, 0],
    slow          => [2, 0, 0],
    vanish        => [2, 0, 0],
    burst         => [2, 0, 0],
    kill_feeder   => [2, 1, 1],
    stop_feeder   => [2, 1, 1],
    client_kill   => [2, 1, 1],
    redis_stop    => [2, 1, 1],
    redis_restart => [1, 1, 1],
);

use constant { PHASE => 20, MINUTE => 60, CALM => 8 };

sub new ($class, $soak, $random) {
    return bless { soak => $soak, random => $random, done => 0, conf => '',
        reloaded => 0, stopped => {}, redis_until => 0, broken => 0 }, $class;
}

sub names ($self) {
    my $opt = $self->{soak}{opt};
    my %off = map { $_ => 1 } split /[ ,]+/, $opt->{off};
    my %only = map { $_ => 1 } split /[ ,]+/, $opt->{only};
    for my $name (keys %off, keys %only) {
        die "soak: no such fault: $name; there are @{[sort keys %faults]}\n"
            if $name ne 'all' && !$faults{$name};
    }
    return if $off{all};
    return grep { !$off{$_} && (!%only || $only{$_})
        && !($faults{$_}[2] && $self->{soak}->embedded) } sort keys %faults;
}

# [seconds, name, rough, three numbers of 0 .. 1]
sub plan ($self) {
    my ($soak, $random) = @$self{qw(soak random)};
    my @names = $self->names or return;
    my $seconds = 60 * $soak->{opt}{minutes};
    my $phase = $seconds < 2 * PHASE ? $seconds / 4 : PHASE;
    my @plan;
    my $t = 1.5;
    while (1) {
        $t += (0.3 + 3.5 * $random->next) * RT::scale($soak->{opt}{pace});
        last if $t >= $seconds - 1;
        $t += CALM if $t > MINUTE - CALM && $t - MINUTE * int($t / MINUTE)
            > MINUTE - CALM;
        my $rough = $soak->strict || int($t / $phase) % 2;
        my @now = grep { $rough || !$faults{$_}[1] } @names;
        my $at = $random->next * sum0(map { $faults{$_}[0] } @now);
        my $name = $now[-1];
        for (@now) {
            $at -= $faults{$_}[0];
            if ($at < 0) { $name = $_; last }
        }
        push @plan, [$t, $name, $rough, map { $random->next } 1 .. 3]
            if @now && $t < $seconds - 1;
    }
    return @plan;
}

sub begin ($self) {
    my $soak = $self->{soak};
    for my $step ($self->plan) {
        my ($t, $name, @args) = @$step;
        $soak->{loop}->at($soak->{start} + $t, sub ($now) {
            return if $self->{over};
            my $what = $self->can("do_$name")->($self, $now, @args) // return;
            $self->{done}++;
            $soak->tell("fault: $name $what");
        });
    }
}

# ends what is still going on
sub finish ($self) {
    $self->{over} = 1;
    kill CONT => $_ for keys %{$self->{stopped}};
    $self->{stopped} = {};
    my $soak = $self->{soak};
    my $redis = $soak->{redis} or return;
    $redis->pid ? $redis->resume : $redis->start;
    $self->{redis_until} = 0;
}

# reloads

sub hup ($self, $now) {
    my $soak = $self->{soak};
    # a hand-over needs Redis, and three seconds at most
    $soak->cut($now, 4) if $soak->{cut} || $now < $self->{redis_until} + 1;
    $self->{reloaded} = $now;
    $self->{reloads}++;
    $soak->{ngx}->signal('HUP');
}

sub write_conf ($self, $more) {
    my $soak = $self->{soak};
    $soak->{ngx}{args}{http} = $soak->http($more);
    $soak->{ngx}->_write_conf;
}

sub do_reload ($self, $now, @) {
    return if $self->{broken};
    $self->hup($now);
    return '';
}

sub do_reload_twice ($self, $now, $rough, $r, @) {
    return if $self->{broken};
    $self->hup($now);
    my $later = $r * $r;
    $self->{soak}{loop}->at($now + $later, sub ($then) {
        $self->hup($then) if !$self->{over} && !$self->{broken};
    });
    return sprintf '%.3f', $later;
}

sub do_reload_other ($self, $now, $rough, $r, $s, @) {
    return if $self->{broken};
    my $workers = 2 + int 3 * $r;
    $self->{soak}{ngx}{args}{workers} = $workers;
    $self->{conf} = sprintf 'rt_poll_interval %ds 20s; add_header X-R "%d";',
        1 + 5 * $s, 1000 * $s;
    $self->write_conf($self->{conf});
    $self->hup($now);
    return "$workers workers";
}

# refused, and the old one goes on
sub do_reload_broken ($self, $now, @) {
    return if $self->{broken} || $now < $self->{reloaded} + 3;
    my $soak = $self->{soak};
    my $seen = $soak->{refused} // 0;
    my %workers = map { $_ => 1 } $soak->{ngx}->workers;
    $self->{broken} = 1;
    $self->write_conf("$self->{conf} soak_broken on;");
    $soak->{ngx}->signal('HUP');
    my $end = $now + RT::scale(6);
    my $look;
    $look = sub ($then) {
        if (($soak->{refused} // 0) == $seen) {
            return $soak->{loop}->at($then + 0.3, $look) if $then < $end;
            $soak->finding('a broken configuration is not refused');
        }
        $self->write_conf($self->{conf});
        $self->{broken} = 0;
        undef $look;
    };
    $soak->{loop}->at($now + 0.3, $look);
    return '';
}

# processes

sub feeder ($self) { return $self->{soak}{feed}{worker} // 0 }

# may the loss of this worker cut the feed?
sub feeds ($self, $pid, $now) {
    return $pid == $self->feeder || $now < $self->{reloaded} + 6
        || $now > ($self->{soak}{feed}{asked} // 0) + 1;
}

sub do_kill_worker ($self, $now, $rough, $r, @) {
    my $soak = $self->{soak};
    my $ngx = $soak->{ngx};
    my @pids = ($ngx->workers, $ngx->old_workers);
    @pids = grep { !$self->feeds($_, $now) } @pids if !$rough
        && !$soak->embedded;
    return if !@pids;
    return $self->kill_it($pids[$r * @pids], $now);
}

sub kill_it ($self, $pid, $now) {
    my $soak = $self->{soak};
    $soak->cut($now, 0.3, $pid) if $self->feeds($pid, $now);
    $soak->{killed}{$pid} = 1;
    delete $self->{stopped}{$pid};
    kill KILL => $pid;
    return $pid . ($pid == $self->feeder ? ', the feeder' : '');
}

sub mine ($self, $pid) {
    return $pid && grep { $_ == $pid } $self->{soak}{ngx}->workers,
        $self->{soak}{ngx}->old_workers;
}

sub do_kill_feeder ($self, $now, @) {
    my $pid = $self->feeder;
    return if !$self->mine($pid);
    return $self->kill_it($pid, $now);
}

sub stop_it ($self, $pid, $now, $seconds) {
    my $soak = $self->{soak};
    return if !$pid || $self->{stopped}{$pid};
    # it is noticed when the lease is over
    $soak->cut($now + $seconds, 3.5) if $self->feeds($pid, $now);
    $self->{stopped}{$pid} = 1;
    kill STOP => $pid;
    $soak->{loop}->at($now + $seconds, sub ($then) {
        kill CONT => $pid if delete $self->{stopped}{$pid};
    });
    return sprintf '%d %.1f s', $pid, $seconds;
}

sub do_stop_feeder ($self, $now, $rough, $r, @) {
    my $pid = $self->feeder;
    return if !$self->mine($pid);
    return $self->stop_it($pid, $now, 0.2 + 4.8 * $r);
}

sub do_stop_worker ($self, $now, $rough, $r, $s, @) {
    my @pids = $self->{soak}{ngx}->workers or return;
    return $self->stop_it($pids[$s * @pids], $now, 0.2 + 2.8 * $r);
}

# Redis

sub do_client_kill ($self, $now, @) {
    my $soak = $self->{soak};
    return if $now < $self->{redis_until};
    $soak->cut($now, 1);
    for my $type (qw(normal pubsub)) {
        eval { $soak->{redis}->cmd(CLIENT => 'KILL', 'TYPE', $type) };
    }
    return '';
}

sub do_redis_stop ($self, $now, $rough, $r, @) {
    my $soak = $self->{soak};
    return if $now < $self->{redis_until};
    my $seconds = 0.2 + 2.8 * $r;
    $soak->cut($now + $seconds, 1)
        if $soak->{cut} || $now < $self->{reloaded} + 6;
    $self->{redis_until} = $now + $seconds;
    $soak->{redis}->pause;
    $soak->{loop}->at($now + $seconds, sub ($then) {
        $soak->{redis}->resume if !$self->{over};
    });
    return sprintf '%.1f s', $seconds;
}

sub do_redis_restart ($self, $now, $rough, $r, $s, @) {
    my $soak = $self->{soak};
    return if $now < $self->{redis_until};
    my $seconds = 0.05 + 1.5 * $r;
    $soak->cut($now + $seconds, 1.5);
    $self->{redis_until} = $now + $seconds + 1;
    # streams were written for good when that was answered
    $s < 0.5 ? $soak->{redis}->stop : $soak->{redis}->kill9;
    $soak->{loop}->at($now + $seconds, sub ($then) {
        $soak->{redis}->start if !$self->{over};
    });
    return sprintf '%s, %.1f s', $s < 0.5 ? 'ends' : 'killed', $seconds;
}

# clients

sub some ($self, $n, $r) {
    my $clients = $self->{soak}{clients};
    my $first = int $r * @$clients;
    return map { $clients->[($first + 7 * $_) % @$clients] } 0 .. $n - 1;
}

sub do_slow ($self, $now, $rough, $r, $s, @) {
    my $seconds = 0.5 + 4 * $r;
    my @clients = grep { $_->open } $self->some(5, $s);
    $_->pause(1) for @clients;
    $self->{soak}{loop}->at($now + $seconds, sub ($then) {
        $_->pause(0) for @clients;
    });
    return sprintf '%d, %.1f s', scalar @clients, $seconds;
}

sub do_vanish ($self, $now, $rough, $r, $s, @) {
    my @clients = grep { $_->open } $self->some(3 + 20 * $r * $r, $s);
    $_->vanish($_->{connects} % 3, $now) for @clients;
    return scalar @clients;
}

# half of them begin where another one is
sub do_burst ($self, $now, $rough, $r, $s, $t) {
    my $soak = $self->{soak};
    my @new;
    for my $like ($self->some(20 + 40 * $r, $s)) {
        my %args = (soak => $soak, path => '/rt/', name => "$like->{name}'",
            channels => $like->{channels});
        if (@new % 2 && $like->{id} ne '') {
            @args{qw(id last_at)} = @$like{qw(id last_at)};
            $args{places} = { map { $_ => { %{$like->{places}{$_}} } }
                @{$like->{channels}} };
        }
        push @new, RT::Soak::Client->new(%args);
    }
    $soak->{loop}->at($now + 0.5 + 3 * $t, sub ($then) {
        $_->leave($then % 2) for @new;
    });
    return scalar @new;
}

1;
