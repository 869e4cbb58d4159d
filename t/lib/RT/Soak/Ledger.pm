package RT::Soak::Ledger;

# What was published, as far as is known, and what was seen of it.
#
# A message says what it is: "CHANNEL NUMBER LENGTH MD5 BODY", the numbers of
# a channel going up by one.  Of each number it is known that it was published
# (the publisher was told so, or somebody saw it), that it was not (refused),
# or neither: its answer was lost.  A client that misses a number whose fate
# is not known yet is remembered until it is.

use v5.36;
use Digest::MD5 qw(md5_hex);

use constant { UNKNOWN => 0, PUBLISHED => 1, REFUSED => 2 };

# part: of the sizes below
sub new ($class, $random, $part, $on_finding) {
    # all bytes but CR, which ends a line as LF does and comes back as one
    my $pad = join '', map { my $byte = int $random->next * 256;
        chr($byte == 13 ? 10 : $byte) } 1 .. 4096;
    return bless { pad => $pad x 32, random => $random, channels => {},
        part => $part, finding => $on_finding, sent => 0, published => 0 },
        $class;
}

# sizes from one byte to 8 KB, small ones more often, now and then 60 KB
sub compose ($self, $channel, $now) {
    my $c = $self->{channels}{$channel} //= { sent => 0, high => 0, newest => 0,
        state => [], seen => [], at => [], told => [], suspects => {} };
    my $n = ++$c->{sent};
    $self->{sent}++;
    my $r = $self->{random}->next;
    my $length = $self->{random}->next < 0.004 ? 60_000
        : 1 + int 8191 * $r * $r * $r;
    $length = 1 + int $length * $self->{part};
    my $body = substr $self->{pad}, int(4096 * $self->{random}->next), $length;
    $c->{state}[$n] = UNKNOWN;
    $c->{at}[$n] = $now;
    return ($n, "$channel $n $length " . substr(md5_hex($body), 0, 12)
        . " $body");
}

# (channel, number), or nothing if it is not as it was composed
sub read ($self, $data) {
    my ($channel, $n, $length, $md5, $at)
        = $data =~ /\A(\S+) (\d+) (\d+) ([0-9a-f]{12}) / ? ($1, $2, $3, $4, $+[0])
        : return;
    return if length($data) - $at != $length
        || substr(md5_hex(substr $data, $at), 0, 12) ne $md5;
    return ($channel, $n);
}

sub sent ($self, $channel) {
    return $self->{channels}{$channel} ? $self->{channels}{$channel}{sent} : 0;
}

sub sent_at ($self, $channel, $n) {
    return $self->{channels}{$channel}{at}[$n];
}

sub published ($self, $channel, $n, $now) {
    my $c = $self->{channels}{$channel};
    if (!$c || $n > $c->{sent}) {
        $self->{finding}->("$channel $n arrived, which was never sent");
        return;
    }
    my $state = $c->{state}[$n];
    return if $state == PUBLISHED;
    if ($state == REFUSED) {
        $self->{finding}->("$channel $n arrived, of which it was said that "
            . 'it was not taken');
    }
    $c->{state}[$n] = PUBLISHED;
    $c->{told}[$n] = $now;
    $c->{newest} = $n if $n > $c->{newest};
    $self->{published}++;
    my $suspects = delete $c->{suspects}{$n} or return;
    $_->lost_one($channel, $n) for @$suspects;
}

sub refused ($self, $channel, $n) {
    my $c = $self->{channels}{$channel};
    $c->{state}[$n] = REFUSED if $c->{state}[$n] == UNKNOWN;
}

# an event stream has got it
sub saw ($self, $channel, $n, $now) {
    $self->published($channel, $n, $now);
    my $c = $self->{channels}{$channel} or return;
    $c->{seen}[$n] //= $now;
    $c->{high} = $n if $n > $c->{high};
}

# the client goes on after it without having had it
sub missed ($self, $client, $channel, $n) {
    my $c = $self->{channels}{$channel};
    my $state = $c->{state}[$n] // UNKNOWN;
    if ($state == PUBLISHED) {
        $client->lost_one($channel, $n);
    } elsif ($state == UNKNOWN) {
        push @{$c->{suspects}{$n}}, $client;
    }
}

# the newest number that was seen, or told to be published, by that time
sub seen_by ($self, $channel, $time) {
    my $c = $self->{channels}{$channel} or return 0;
    my $n = $c->{high};
    $n-- while $n > 0 && ($c->{seen}[$n] // $time + 1) > $time;
    return $n;
}

sub told_by ($self, $channel, $time) {
    my $c = $self->{channels}{$channel} or return 0;
    my $n = $c->{newest};
    $n-- while $n > 0 && ($c->{told}[$n] // $time + 1) > $time;
    return $n;
}

# how many numbers have no known fate
sub unknown ($self) {
    my $n = 0;
    for my $c (values %{$self->{channels}}) {
        $n += grep { defined && $_ == UNKNOWN } @{$c->{state}}[1 .. $c->{sent}];
    }
    return $n;
}


package RT::Soak::Random;

# Numbers from a seed, independent of perl's own.

use v5.36;

sub new ($class, $seed) {
    my $self = bless { x => ($seed * 2_654_435_761 + 88_172_645) & 0xffff_ffff
        || 1 }, $class;
    $self->next for 1 .. 8;
    return $self;
}

sub next ($self) {
    my $x = $self->{x};
    $x ^= $x << 13 & 0xffff_ffff;
    $x ^= $x >> 17;
    $x ^= $x << 5 & 0xffff_ffff;
    $self->{x} = $x;
    return $x / 4_294_967_296;
}

sub pick ($self, @list) { return $list[int $self->next * @list] }

1;
